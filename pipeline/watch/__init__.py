"""Liveness of workers: what stands still and why, pages of health and metrics, and what a supervisor restarts."""
