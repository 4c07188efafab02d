"""Sinks that send alerts to other programs over HTTP: a webhook, and Alertmanager."""
