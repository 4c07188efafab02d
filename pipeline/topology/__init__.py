"""Topology of a pipeline: topic plan, repartitioned streams, rule files and their updates."""
