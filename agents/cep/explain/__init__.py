"""Explanations of rules: automata as diagrams, and why a rule did not match."""
