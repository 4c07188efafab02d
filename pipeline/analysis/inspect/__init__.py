"""`astrocyte inspect`: what a topic, a recorded log or a file of events holds, and a starter for its rules."""
