"""Logs sent again: their pace, their laps, and the times of what they hold."""
