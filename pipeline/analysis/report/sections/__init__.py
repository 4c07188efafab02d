"""Sections of the report about a run."""
