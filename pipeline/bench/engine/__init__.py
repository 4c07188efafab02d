"""Benchmarks of the engine: sequences, combinations, conjunctions and windows."""
