"""Experiments: sweeps over settings and seeds, their results in the database, and the comparison of these."""
