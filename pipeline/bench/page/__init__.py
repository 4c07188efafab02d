"""Benchmarks of the live page: instants of a long run, and rules tried over its history."""
