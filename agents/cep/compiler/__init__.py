"""From a rule to tables: pattern graph, conditions in normal form, flattened states."""
