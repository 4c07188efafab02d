"""Faults put into the product on purpose: the simulation must find them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from astrocyte.pipeline.roles.sink.runner import SinkRunner
from tests.support.simulation.pipeline import Case

__all__ = ["MUTANTS"]


def _acknowledge_on_receipt(case: Case) -> Case:
    """A sink role acknowledges a chunk when it has it, and not once the store has it."""
    handle: Any = SinkRunner.handle

    async def mutated(self: Any, chunk: Any, delivery: Any, records: Any) -> None:
        await handle(self, chunk, delivery, records)
        delivery.ack_through()

    SinkRunner.handle = mutated
    return case


def _acknowledge_before_sync(case: Case) -> Case:
    """The broker acknowledges records that are not on disk."""
    return replace(case, sync="interval")


MUTANTS: dict[str, Callable[[Case], Case]] = {
    "acknowledge on receipt": _acknowledge_on_receipt,
    "acknowledge before sync": _acknowledge_before_sync,
}
