"""Matches: tables of them, their emitted values, alerts and lineage, and their records."""
