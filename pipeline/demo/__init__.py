"""``astrocyte demo``: the whole pipeline on one machine, ending by itself."""
