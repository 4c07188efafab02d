"""From rounds of a world to frames in a sink."""
