"""How the rules of a set feed one another, directly and through junctions, and what of it is impossible."""
