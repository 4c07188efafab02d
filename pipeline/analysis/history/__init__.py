"""A recorded history in memory, over which changed rules are run again and again: `tapes`, `results`, `comparison`."""
