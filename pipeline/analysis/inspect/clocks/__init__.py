"""What the times of a sample say of the clocks by which they were taken."""
