import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from astrocyte.scenario import configure, load_scenario, scenario_names, simulate
from astrocyte.schemas.errors import InvalidSettings
from astrocyte.simulator.event_spec import cell_id, id_parts
from astrocyte.simulator.runtime.programs import TRACES
from astrocyte.simulator.scenarios.axons.scenario import AxonsConfig
from astrocyte.simulator.scenarios.cells.config import CellsConfig
from astrocyte.simulator.testing import check_scenario
from tests.support.worlds import MORAN, DriftConfig, MoranConfig, WrightFisher, trace

pytestmark = pytest.mark.time_limit(30, "compiles every world")


@pytest.mark.parametrize("name", scenario_names())
def test_every_registered_scenario_keeps_the_contract(name: str) -> None:
    assert check_scenario(name) == []


def test_importing_the_simulator_and_listing_scenarios_does_not_load_jax() -> None:
    code = "import sys, astrocyte.scenario as s; s.scenario_names(); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_scenario_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSettings, match=r"no scenario 'axon'; known: axons, .*did you mean 'axons'"):
        load_scenario("axon")


def test_a_scenario_may_be_named_by_module_and_object() -> None:
    assert load_scenario("tests.support.worlds:MORAN") is MORAN
    with pytest.raises(InvalidSettings, match="has no 'NOTHING'"):
        load_scenario("tests.support.worlds:NOTHING")
    with pytest.raises(InvalidSettings, match=r"expected a Scenario or its class, got 16 of type int"):
        load_scenario("astrocyte.simulator.runtime.world:SNAPSHOT_ROUNDS")


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (CellsConfig, {"size": 5}, "world: size: expected int from 32 to 33554432, got 5"),
        (CellsConfig, {"hazard": 1.5}, "world: hazard: expected float from 0.0 to 1.0, got 1.5"),
        (CellsConfig, {"hazard": float("nan")}, "world: hazard: expected float from 0.0 to 1.0, got nan"),
        (CellsConfig, {"initial": 0}, "world: initial: expected float above 0.0 to 1.0, got 0"),
        (CellsConfig, {"sise": 64}, "world: there is no setting 'sise'; known settings: ageing,"),
        (CellsConfig, {"plants": [{"kind": "flood", "at_tick": 1}]}, "decline, hypermutation), got 'flood'"),
        (
            CellsConfig,
            {"plants": [{"kind": "collapse", "at_tick": 1, "strength": 2}]},
            "expected a share from 0 to 1, got 2.0",
        ),
        (
            CellsConfig,
            {"plants": [{"kind": "collapse", "at_tick": -1}]},
            "world: plants.0.at_tick: Input should be greater than or equal to 0, got -1",
        ),
        (AxonsConfig, {"rate_hz": (1, 1, -1)}, "rate_hz of axon 3: expected a number from 0 to 10000, got -1.0"),
        (AxonsConfig, {"branching": (0, 1, 0)}, "branching of axon 2: expected a number from 0 to 0.95, got 1.0"),
    ],
)
def test_a_wrong_setting_is_refused_naming_field_and_range(model: type, settings: dict, message: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        configure(model, settings, scenario="world")
    assert message in str(refused.value)


def test_a_run_without_an_end_or_with_wrong_options_is_refused() -> None:
    for options, message in (
        ({}, "neither ticks, seconds nor a stop function"),
        ({"ticks": 5, "seconds": 1.0}, "both ticks .* and seconds"),
        ({"ticks": 0}, "ticks: expected a number above 0 and below 2\\*\\*53, got 0"),
        ({"ticks": 5, "rate": -1.0}, "rate: expected a number above 0, got -1.0"),
        ({"ticks": 5, "seed": -3}, "seed: expected 0 or a number above it, got -3"),
    ):
        with pytest.raises(InvalidSettings, match=message):
            simulate("axons", {}, sink=None, **options)
    with pytest.raises(InvalidSettings, match="expected a AxonsConfig, got a CellsConfig"):
        simulate("axons", CellsConfig(), sink=None, ticks=1)


def test_a_sweep_over_params_compiles_once() -> None:
    settings = {"slots": 32, "replicates": 4}
    first = trace(MORAN, MoranConfig(advantage=0.0, **settings), 1, 20)
    before = TRACES["moran"]
    second = trace(MORAN, MoranConfig(advantage=0.7, **settings), 1, 20)
    assert TRACES["moran"] == before
    assert not np.array_equal(first["carriers"], second["carriers"])


class WeaklyTyped(WrightFisher):
    """Its state is weakly typed at first and then no more, and another part the other way round."""

    name = "weakly_typed"

    def init(self, static, params, ctx):
        return {"first": jnp.where(jnp.arange(static.slots) % 2 == 0, 1, 0), "then": jnp.zeros((), jnp.float32)}

    def step(self, static, params, state, ctx):
        ctx.metric("carriers", jnp.sum(state["first"], dtype=jnp.int32))
        return {"first": state["first"].astype(jnp.int32), "then": jnp.where(state["then"] > 0, 1.0, 0.0)}


def test_a_state_whose_parts_are_weakly_typed_compiles_once() -> None:
    trace(WeaklyTyped(), DriftConfig(slots=8), 1, 30, chunk_ticks=10)
    assert TRACES["weakly_typed"] == 1


def test_ids_hold_ticks_beyond_32_bits_and_stay_positive() -> None:
    for tick, place in ((0, 0), (2**33 + 5, 17), (2**38 - 1, 2**25 - 1)):
        number = cell_id(tick, place)
        assert 0 <= number < 2**63
        assert id_parts(number) == (tick, place)
