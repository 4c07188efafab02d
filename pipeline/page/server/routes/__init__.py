"""Answers to the questions of a browser: trees, pictures in space, messages, rules."""
