"""Operators that make streams of results: windows and statistics."""
