"""The Faust apps of a pipeline, one for each role."""
