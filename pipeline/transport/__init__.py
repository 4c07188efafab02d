"""The Faust transport: exact commits, one event per fetched chunk, confirmed production."""
