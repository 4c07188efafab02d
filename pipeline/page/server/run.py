"""Running the page as a process: its source, rules and address from options and settings."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from astrocyte.pipeline.kafka.offsets import parse_span_us
from astrocyte.pipeline.page.content.graph import graph_of
from astrocyte.pipeline.page.content.state import PageState
from astrocyte.pipeline.page.listening import listening
from astrocyte.pipeline.page.rules.bench import RuleBench
from astrocyte.pipeline.page.server.inquiry import Inquiry
from astrocyte.pipeline.page.server.page import Page
from astrocyte.pipeline.page.server.security import Access
from astrocyte.pipeline.page.server.serve import serve_page
from astrocyte.pipeline.page.sources.broker import BrokerSource
from astrocyte.pipeline.page.sources.chosen import chosen_source, rules_of_demo
from astrocyte.pipeline.settings import Settings, load_settings
from astrocyte.pipeline.topology.plan import contracts_of, decoders_of, make_plan
from astrocyte.pipeline.topology.rule_files import read_rule_files
from astrocyte.pipeline.transport.client_log import limit_client_log

__all__ = ["PageOptions", "run_page"]


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Options of the command line; None leaves one to the settings."""

    source: str | None = None
    port: int | None = None
    host: str | None = None
    rules: tuple[Path, ...] = ()
    run: str | None = None
    since: str | None = None
    broker: str | None = None
    write: bool = False
    """Whether rules may be published from the page."""
    listen_fd: int | None = None
    """A socket that listens already, at 127.0.0.1, in place of host and port."""
    demo: Path | None = None
    """Folder of the demo whose broker it is."""


def run_page(options: PageOptions, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Raises AstrocyteError for a source, a rule file or an address that cannot be."""
    limit_client_log()
    settings = load_settings(
        broker=options.broker, rules=options.rules or None, page_port=options.port, page_host=options.host
    )
    history_us = None if options.since is None else parse_span_us(options.since)
    rule_files = _rules(options, settings)
    ruleset = read_rule_files(rule_files)
    inputs = make_plan(ruleset).inputs
    source = chosen_source(
        options.source, settings, inputs=inputs, history_us=history_us, run=options.run, demo=options.demo
    )
    page = Page(source, PageState(decoders=decoders_of(contracts_of(ruleset))))
    page.figures("graph", graph_of(ruleset, settings if isinstance(source, BrokerSource) else None))
    bench = RuleBench(source, rule_files, settings, since_us=history_us, write=options.write)
    token = None if settings.page_token is None else settings.page_token.get_secret_value()

    host = "127.0.0.1" if options.listen_fd is not None else settings.page_host
    access = Access(host, token)
    if options.listen_fd is not None:
        listener = socket.socket(fileno=options.listen_fd)
    else:
        listener = listening(host, settings.page_port)

    async def serve() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            inquiry = Inquiry(source, rule_files, settings)
            await serve_page(page, inquiry, access, bench, listener, on_ready=on_ready)

    asyncio.run(serve())


def _rules(options: PageOptions, settings: Settings) -> tuple[Path, ...]:
    """The given rule files, else those of the demo whose folder it is, else those of the settings."""
    if options.rules:
        return options.rules
    return tuple(Path(each) for each in rules_of_demo(options.source)) or settings.rules
