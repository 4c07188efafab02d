"""For programs that are not workers: publishing their own events, and handling events by decorated functions."""
