"""What of the input nobody used, and why: counts with examples, kinds of reasons, values that are no numbers."""
