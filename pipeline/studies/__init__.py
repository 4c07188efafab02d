"""Studies: many worlds, and a report that answers one question (docs/studies.md)."""
