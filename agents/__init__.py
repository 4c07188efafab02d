"""Correlation of events, with no broker: rules in, events in, matches out; and the sinks for what comes out."""
