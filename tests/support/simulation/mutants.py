"""Faults put into the product on purpose: the simulation must find them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from astrocyte.pipeline.roles.correlate import Correlator
from astrocyte.pipeline.roles.sink.runner import SinkRunner
from tests.support.simulation.pipeline import Case

__all__ = ["MUTANTS"]


def _acknowledge_before_store(case: Case) -> Case:
    """A sink role acknowledges a batch before the store has it."""
    write: Any = SinkRunner._write

    async def mutated(self: Any) -> None:
        for delivery in self._batch.deliveries.values():
            delivery.ack_through()
        await write(self)

    SinkRunner._write = mutated
    return case


def _snapshot_before_outputs(case: Case) -> Case:
    """A snapshot is stored although outputs that it counts as emitted are not confirmed."""
    send: Any = Correlator._send_output

    async def mutated(self: Any, part: Any, output: Any) -> None:
        await send(self, part, output)
        part.unconfirmed = []

    Correlator._send_output = mutated
    return case


def _acknowledge_before_sync(case: Case) -> Case:
    """The broker acknowledges records that are not on disk."""
    return replace(case, sync="interval")


def _forget_positions(case: Case) -> Case:
    """A restored domain goes on at the committed offsets, not at those of its snapshot."""
    assigned: Any = Correlator.assigned

    async def mutated(self: Any, committed: Any) -> dict[Any, int]:
        await assigned(self, committed)
        return {}

    Correlator.assigned = mutated
    return case


MUTANTS: dict[str, Callable[[Case], Case]] = {
    "acknowledge before store": _acknowledge_before_store,
    "snapshot before outputs": _snapshot_before_outputs,
    "acknowledge before sync": _acknowledge_before_sync,
    "forget positions": _forget_positions,
}
