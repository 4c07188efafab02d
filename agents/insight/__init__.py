"""Statistics of evolution over frames, by run and window of event time (docs/insight.md)."""
