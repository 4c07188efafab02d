"""Matches and what is made of them: tables, emitted values, alerts, lineage."""
