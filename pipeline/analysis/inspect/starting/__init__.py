"""A starter: the declaration and rules that fit what was seen, tried before they are written."""
