"""`check_scenario` on scenarios of users: which it passes, and which faults it names."""

import random
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from astrocyte.scenario import Column, EventSpec, MemorySink, Scenario, ScenarioConfig, simulate
from astrocyte.schemas.catalog import CATALOG, EventType
from astrocyte.schemas.errors import PluginError
from astrocyte.testing import check_scenario

pytestmark = pytest.mark.time_limit(20, "compiles worlds")


class Hives(Scenario):
    """Every hive is weighed at every tick."""

    name, Config, size_setting, sample = "hives", ScenarioConfig, None, {}
    column = Column("kg")

    def static(self, config: Any) -> Any:
        return 16

    def islands(self, config: Any) -> int:
        return 1

    def slots(self, static: Any) -> int:
        return static

    def params(self, config: Any) -> Any:
        return {"gain": np.float32(0.5)}

    def events(self, static: Any) -> tuple[EventSpec, ...]:
        return (EventSpec("weighing", "test_hives", (self.column,), "weighing"),)

    def init(self, static: Any, params: Any, ctx: Any) -> Any:
        return {"kg": jnp.full(static, 30.0, jnp.float32)}

    def step(self, static: Any, params: Any, state: Any, ctx: Any) -> Any:
        kg = state["kg"] + params["gain"] * (ctx.uniform("gain") - 0.5)
        ctx.emit("weighing", jnp.ones(static, bool), **{self.column.name: kg.astype(self.column.dtype)})
        return {"kg": kg}


class Impure(Hives):
    def step(self, static, params, state, ctx):
        after = super().step(static, params, state, ctx)
        return {"kg": after["kg"] + random.random()}


class ImpureStart(Hives):
    def init(self, static, params, ctx):
        return {"kg": jnp.asarray(np.random.default_rng().normal(size=static), jnp.float32)}


class ImpureParams(Hives):
    def params(self, config):
        return {"gain": np.float32(random.random())}


class Unrecorded(Hives):
    int_metrics = ("weighings", "swarms")

    def step(self, static, params, state, ctx):
        ctx.metric("weighings", jnp.int32(static))
        return super().step(static, params, state, ctx)


class WrongKind(Hives):
    def step(self, static, params, state, ctx):
        ctx.emit("weighting", jnp.ones(static, bool), kg=state["kg"])
        return state


class WrongColumns(Hives):
    def step(self, static, params, state, ctx):
        ctx.emit("weighing", jnp.ones(static, bool), kg=state["kg"], temperature=state["kg"])
        return state


class ReturnsNothing(Hives):
    def step(self, static, params, state, ctx):
        super().step(static, params, state, ctx)


class Grows(Hives):
    def step(self, static, params, state, ctx):
        super().step(static, params, state, ctx)
        return {"kg": jnp.concatenate([state["kg"], state["kg"]])}


class ShortColumn(Hives):
    def events(self, static):
        columns = (Column("kg"), Column("hive", "derived", derive=lambda rows: ["x"]))
        return (EventSpec("weighing", "test_hives", columns, "weighing"),)


class WrongPlant(Hives):
    def step(self, static, params, state, ctx):
        ctx.planted({}, 5)
        return super().step(static, params, state, ctx)


class NoIslands(Hives):
    def islands(self, config):
        return 0


def test_a_right_scenario_passes() -> None:
    assert check_scenario(Hives(), ticks=20) == []


PURE = "take random numbers from ctx, read no clock, and keep nothing outside the state"


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Impure, f"init() or step(), traced twice, gave other programs; {PURE}"),
        (ImpureStart, f"init() or step(), traced twice, gave other programs; {PURE}"),
        (
            ImpureParams,
            f"a second world of the same settings and seed gave other frames and another state; {PURE}",
        ),
        (
            Unrecorded,
            "metric 'swarms' is declared, and step records it nowhere; record it with ctx.metric, or leave it out",
        ),
        (
            WrongKind,
            "the step emits the kind 'weighting', which events() does not declare; declared: weighing; did you",
        ),
        (WrongColumns, "kind 'weighing': expected columns ['kg'] (its EventSpec), got ['kg', 'temperature']"),
        (WrongPlant, "planted() of kind 5; expected the number of a kind of plant_kinds, the scenario has: none"),
        (NoIslands, "islands() of scenario 'hives' returned 0; expected 1 or more"),
        (ReturnsNothing, "step() of scenario 'hives' returned None; expected the state after the tick"),
        (
            Grows,
            "step() of scenario 'hives' returned a state in which ['kg'] is float32[32]; expected float32[16], as in",
        ),
        (
            ShortColumn,
            "derive of column 'hive', kind 'weighing', returned 1 values; expected one for each of the 160 rows",
        ),
    ],
)
def test_a_wrong_scenario_is_found_and_its_fault_named(kind: type[Hives], fault: str) -> None:
    (found,) = check_scenario(kind(), ticks=20)
    assert found.startswith(fault)


def test_a_column_that_cannot_be_the_field_of_the_catalog_is_named_by_the_check_and_by_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(
        CATALOG._types, "test_hives", EventType("test_hives", "hive", {"hive": "string"}, ("weighing",))
    )

    class Numbered(Hives):
        column = Column("hive", dtype="int32")

    fault = (
        "scenario 'hives', kind 'weighing': column 'hive' is an int32; the catalog lists the field as string, which is "
        "made of: enum, derived. Declare it as one of them, or change the catalog"
    )
    assert check_scenario(Numbered(), ticks=20) == [fault]
    sink = MemorySink()
    with pytest.raises(PluginError) as refused:
        simulate(Numbered(), ticks=20, sink=sink)
    assert (str(refused.value), sink.frames) == (fault, [])
