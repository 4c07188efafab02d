"""The page as the child of a pipeline, on a socket that it inherits; all else is in the settings of its environment."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from astrocyte.pipeline.page.server.run import PageOptions, run_page
from astrocyte.pipeline.roles.parent import end_with_parent

_NICE = 5
"""The pipeline comes first where both want the processor."""


def _main() -> None:
    parser = argparse.ArgumentParser(prog="astrocyte.pipeline.page")
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--demo", type=Path)
    options = parser.parse_args()
    os.nice(_NICE)
    end_with_parent()
    run_page(PageOptions(listen_fd=options.listen_fd, demo=options.demo), on_ready=lambda _address: None)
    os._exit(0)  # threads that look up a lineage are not waited for


if __name__ == "__main__":
    _main()
