"""Which domains are linked, by which junctions, and which workers have them, at an instant."""
