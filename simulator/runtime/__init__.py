"""Running a world: chunks of ticks on its devices, checkpoints and controls."""
