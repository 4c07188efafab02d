"""Near misses of a rule, found by a process of their own."""

from astrocyte.pipeline.page.near_misses import near_misses
from tests.support.world_log import RUN, world_log


async def test_near_misses_are_the_partial_matches_of_the_rule_that_ended(tmp_path):
    world = world_log(tmp_path)
    limits = {"lateness_us": 0, "clock_tolerance_us": 3_600_000_000}
    found = await near_misses([world.rules], [world.log], rule="population_collapse", key=RUN, **limits)
    assert found["matches"] == 1
    assert found["missed"] >= len(found["attempts"]) > 0
    assert {each["ended"] for each in found["attempts"]} <= {"contiguity", "open", "window"}
    refused = await near_misses([world.rules], [world.log], rule="population_collapse", key="nobody", **limits)
    assert RUN in refused["unavailable"]
