"""Entry of the ``astrocyte`` command: a signal ends it in order from its first moment on."""

from __future__ import annotations

from astrocyte.pipeline.stopping import end_at_once

__all__ = ["main"]


def main() -> None:
    """Run the command."""
    end_at_once()
    # Imported here: this takes longer than everything before.
    from astrocyte.pipeline.cli.app import main as run

    run()
