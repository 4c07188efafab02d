"""The tests' own fixture: what one test does to the process, the next one does not see."""

import logging
import os
import signal
import sys
from pathlib import Path

import pytest

from astrocyte.agents.ingest.decoders import DECODERS, RECOGNISE_FAILED
from astrocyte.agents.sinks.registry import SINKS
from astrocyte.pipeline.logging import configure_logging
from astrocyte.schemas.catalog import CATALOG, EventType
from tests.support import process_state
from tests.support.process_state import (
    REGISTRIES,
    kept_environment,
    kept_logging,
    kept_registrations,
    kept_signals,
    loaded,
)

NAME = "process_state_of_a_test"


def test_the_environment_the_folder_and_the_path_are_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTROCYTE_BEFORE", "1")
    before = (dict(os.environ), Path.cwd(), list(sys.path))
    with kept_environment():
        os.environ["ASTROCYTE_AFTER"] = "1"
        del os.environ["ASTROCYTE_BEFORE"]
        os.chdir(tmp_path)
        sys.path.insert(0, str(tmp_path))
    assert (dict(os.environ), Path.cwd(), list(sys.path)) == before


def test_logging_is_as_before() -> None:
    before = (logging.root.level, logging.getLogger("faust").level)
    with kept_logging():
        configure_logging("debug" if before[0] != logging.DEBUG else "info", json=True)
        logging.getLogger("faust").setLevel(logging.CRITICAL)
        logging.disable(logging.ERROR)
    assert (logging.root.level, logging.getLogger("faust").level) == before
    assert logging.root.manager.disable == logging.NOTSET
    assert not [each for each in logging.root.handlers if type(each) is logging.StreamHandler]


def test_handlers_of_signals_are_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with kept_signals():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_a_test_registers_and_counts_is_gone_after_it() -> None:
    names, counts = [each.names() for each in loaded(REGISTRIES).values()], dict(RECOGNISE_FAILED)
    with kept_registrations():
        CATALOG.register(EventType(NAME, key="key", fields={"value": "float64"}))
        DECODERS.register(NAME, lambda record: {"value": 1.0})
        SINKS.register(NAME, lambda context: None)
        RECOGNISE_FAILED[NAME] += 3
        assert NAME in SINKS
    assert NAME not in CATALOG
    assert [each.names() for each in loaded(REGISTRIES).values()] == names
    assert dict(RECOGNISE_FAILED) == counts


def test_what_a_plugin_registers_when_it_is_imported_stays_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{NAME}_plugin.py").write_text(
        f"from astrocyte.agents.ingest.decoders import DECODERS\nDECODERS.register({NAME!r}, lambda record: {{}})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with kept_registrations():
        __import__(f"{NAME}_plugin")
    assert NAME in DECODERS
    sys.modules.pop(f"{NAME}_plugin")


def test_every_registry_of_the_packages_is_listed() -> None:
    root = Path(process_state.__file__).parents[2]
    found = {
        "astrocyte." + ".".join(path.relative_to(root).with_suffix("").parts)
        for package in ("schemas", "simulator", "agents", "pipeline")
        for path in (root / package).rglob("*.py")
        if "Final[Registry[" in path.read_text()
    }
    assert found == set(REGISTRIES)
