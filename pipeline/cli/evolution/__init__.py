"""Commands about the evolution of a run: who descends from whom, and what was selected."""
