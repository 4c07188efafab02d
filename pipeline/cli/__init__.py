"""The ``astrocyte`` command."""
