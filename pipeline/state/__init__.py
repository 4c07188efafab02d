"""Snapshots of a domain's state and where they are stored."""
