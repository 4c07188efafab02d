"""Compilation of a rule to tables: pattern graph (NFA), conditions in normal form, flattened states."""
