"""The phylogeny of a run as it grows: who was born of whom, laid out, and what of it a window on the page shows."""
