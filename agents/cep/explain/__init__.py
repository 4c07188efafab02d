"""Rules explained: automata as pictures, and why a rule did not match."""
