"""``python -m astrocyte.pipeline.broker --data DIR --port N``: run the broker alone."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path

from astrocyte.pipeline.broker.protocol.errors import BrokerError
from astrocyte.pipeline.broker.server.service import serve
from astrocyte.pipeline.broker.settings import BrokerSettings

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the broker; returns the exit status: 0 after SIGINT or SIGTERM, 1 if it cannot run, 2 for a usage error."""
    parser = argparse.ArgumentParser(
        prog="python -m astrocyte.pipeline.broker",
        description="A single-node broker that speaks Kafka's protocol and stores its records in a folder.",
    )
    parser.add_argument(
        "--data", dest="data_dir", type=Path, required=True, metavar="DIR", help="folder in which records are stored"
    )
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when standard input is closed")
    parser.add_argument(
        "--no-auto-create", dest="auto_create_topics", action="store_false", help="do not create topics on first use"
    )
    parser.add_argument("--verbose", action="store_true", help="log informational messages, not only warnings")
    for field in dataclasses.fields(BrokerSettings):
        if field.name in ("data_dir", "auto_create_topics"):
            continue
        kind = {"int": int, "float": float}.get(str(field.type), str)
        parser.add_argument(
            "--" + field.name.replace("_", "-"), type=kind, default=field.default, help=f"default: {field.default}"
        )
    options = vars(parser.parse_args(arguments))
    ready_fd, until_stdin_closes = options.pop("ready_fd"), options.pop("until_stdin_closes")
    logging.basicConfig(
        level=logging.INFO if options.pop("verbose") else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )

    def ready(address: str) -> None:
        print(f"broker ready at {address}, records in {options['data_dir']}", flush=True)
        if ready_fd is not None:
            os.write(ready_fd, address.encode())
            os.close(ready_fd)

    try:
        serve(BrokerSettings(**options), on_ready=ready, until_stdin_closes=until_stdin_closes)
    except BrokerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
