"""What belongs to the whole process is after each test as it was before: no test sees what an earlier one left.

Kept are the environment, the working folder, the search path of modules, logging, handlers of signals, what programs
register by name, the catalog, and counts of recognisers. What a test imports stays imported, and so stays registered.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["process_state_kept"]

REGISTRIES = {
    "astrocyte.agents.controllers.base": "CONTROLLERS",
    "astrocyte.agents.ingest.decoders": "DECODERS",
    "astrocyte.agents.rules.validator_functions": "VALIDATORS",
    "astrocyte.agents.sinks.registry": "SINKS",
    "astrocyte.agents.sinks.sql.targets": "TABLES",
    "astrocyte.pipeline.role_registry": "ROLES",
    "astrocyte.pipeline.studies.study": "STUDIES",
    "astrocyte.schemas.catalog": "STREAMS",
    "astrocyte.simulator.scenario": "SCENARIOS",
}
"""Where the registries are. Those of modules that are not loaded hold nothing."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PACKAGES = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2] / "astrocyte"))
"""Folders of modules that register nothing of a test's."""


def loaded(places: dict[str, str]) -> dict[str, Any]:
    return {module: getattr(sys.modules[module], name) for module, name in places.items() if module in sys.modules}


def levels() -> dict[str, int]:
    known = logging.root.manager.loggerDict
    return {name: each.level for name, each in known.items() if isinstance(each, logging.Logger) and each.level}


def has_plugins(modules: set[str]) -> bool:
    """Whether one of the modules is neither installed nor of Astrocyte: it may have registered something."""
    files = (getattr(sys.modules.get(name), "__file__", None) for name in modules)
    return any(not file.startswith(PACKAGES) for file in files if file)


@contextmanager
def kept_environment() -> Iterator[None]:
    environment, folder, path = dict(os.environ), Path.cwd(), list(sys.path)
    try:
        yield
    finally:
        if os.environ != environment:
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)
        os.chdir(folder)
        sys.path[:] = path


@contextmanager
def kept_logging() -> Iterator[None]:
    """Handlers that were added to the root logger are removed; pytest adds and removes its own."""
    root = logging.root
    level, handlers, disabled, of_loggers = root.level, list(root.handlers), logging.root.manager.disable, levels()
    try:
        yield
    finally:
        for handler in root.handlers[:]:
            if handler not in handlers and not handler.__class__.__module__.startswith("_pytest."):
                root.removeHandler(handler)
        root.setLevel(level)
        logging.disable(disabled)
        now = levels()
        for name in now.keys() | of_loggers.keys():
            if now.get(name) != of_loggers.get(name):
                logging.getLogger(name).setLevel(of_loggers.get(name, logging.NOTSET))


@contextmanager
def kept_signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def kept_registrations() -> Iterator[None]:
    modules = set(sys.modules)
    names = {module: set(each._registered) for module, each in loaded(REGISTRIES).items()}
    catalog = loaded({"astrocyte.schemas.catalog": "CATALOG"}).get("astrocyte.schemas.catalog")
    types = dict(catalog._known()) if catalog is not None else {}
    failed = loaded({"astrocyte.agents.ingest.decoders": "RECOGNISE_FAILED"})
    counts = {module: dict(each) for module, each in failed.items()}
    try:
        yield
    finally:
        for module, each in failed.items():
            if each != counts[module]:
                each.clear()
                each.update(counts[module])
        if not has_plugins(set(sys.modules) - modules):
            for module, each in loaded(REGISTRIES).items():
                for name in set(each._registered) - names.get(module, set()):
                    for kept in (each._registered, each._loaded, each._broken):
                        kept.pop(name, None)
            if catalog is not None and catalog._types != types:
                catalog._types.clear()
                catalog._types.update(types)


@pytest.fixture(autouse=True)
def process_state_kept() -> Iterator[None]:
    """The state of the process after the test is that before it."""
    with kept_environment(), kept_logging(), kept_signals(), kept_registrations():
        yield
