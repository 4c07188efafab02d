"""Benchmarks of the engine: sequences, conjunctions and windows."""
