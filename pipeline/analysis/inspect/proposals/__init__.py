"""Proposing a declaration of a stream from a sample of its messages."""
