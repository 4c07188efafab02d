"""The Faust transport: exact commits, whole chunks, confirmed production."""
