import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import CATALOG
from astrocyte.schemas.catalog import Catalog, EventType
from astrocyte.schemas.measurements import MEASUREMENTS, hashes_apart, measurement_of, times_apart, window_measurement

# The measurements of docs/data.md, written out again.
SEED = {
    "cell_vitals": {
        "tags": ["cell_id", "generation", "lineage"],
        "fields": ["energy", "mass", "age_ticks", "alive", "weight"],
    },
    "genome_data": {
        "tags": ["cell_id", "genome_type"],
        "fields": ["metabolism", "growth_rate", "division_size", "mutation_rate",
                  "neural_weights", "tpu_cores", "tpu_memory", "tpu_efficiency", "weight"],
    },
    "problem_solving": {
        "tags": ["cell_id", "problem_type", "difficulty"],
        "fields": ["accuracy", "energy_reward", "processing_time", "tpu_utilization", "weight"],
    },
    "population_metrics": {
        "tags": ["simulation_id"],
        "fields": ["total_population", "avg_accuracy", "genome_diversity",
                  "avg_generation", "energy_efficiency"],
    },
    "evolutionary_events": {
        "tags": ["event_type", "cell_id", "parent_id"],
        "fields": ["mutation_magnitude", "fitness_delta", "generation_gap", "generation", "age_ticks"],
    },
}  # fmt: skip
TICK_US = 1_735_689_600_000_000


def test_the_five_measurements_have_the_documented_tags_and_fields():
    assert {name: {"tags": list(each.tags), "fields": list(each.fields)} for name, each in MEASUREMENTS.items()} == SEED


def test_every_documented_tag_and_field_is_a_column_of_the_catalog():
    for name, shape in SEED.items():
        columns = set(CATALOG[name].fields) | {"simulation_id", "weight"}
        assert columns >= {*shape["tags"], *shape["fields"]}


def test_other_listed_streams_have_type_and_run_as_tags_and_all_else_as_fields():
    catalog = Catalog()
    catalog.register(EventType("ovens", key="oven", fields={"heat": "float32", "type": "string"}))
    found = measurement_of("ovens", catalog)
    assert found.tags == ("simulation_id", "type")
    assert found.fields == ("key", "heat")
    assert measurement_of("unlisted", catalog) is None
    assert measurement_of("truth") is None


def test_a_window_that_computes_a_documented_measurement_has_its_shape():
    found = window_measurement("population_metrics", ("total_population", "window_start"))
    assert (found.tags, found.fields) == (("simulation_id",), MEASUREMENTS["population_metrics"].fields)
    assert window_measurement("novelty", ("born", "simulation_id")).fields == ("born",)


def test_a_million_cells_of_one_tick_get_a_million_times_within_it():
    numbers = np.arange(7_000_000, 8_000_000)
    times = times_apart(np.full(len(numbers), TICK_US), numbers)
    assert len(np.unique(times)) == len(numbers)
    assert times.min() >= TICK_US * 1000
    assert times.max() < (TICK_US + 10_000) * 1000


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, 999, 1_000, 1_001, 2_000, 9_999, 10_000, 10_001, 20_000]), st.integers(1, 399)
        ),
        min_size=2,
        max_size=60,
    ),
    st.integers(0, 2**40),
)
def test_rows_of_nearby_times_never_share_a_timestamp(rows, start):
    after_us = np.array([after for after, _ in rows])
    numbers = start + np.cumsum([step for _, step in rows])
    # No two rows of one timestamp are a multiple of 400 apart, which is the smallest number of slots.
    pairs = {(after, number % 400) for after, number in zip(after_us.tolist(), numbers.tolist(), strict=True)}
    times = times_apart(TICK_US + after_us, numbers)
    assert len(set(times.tolist())) >= len(pairs)
    moved = times // 1000 - (TICK_US + after_us)
    resolution = np.where(after_us % 10_000 == 0, 10_000, np.where(after_us % 1_000 == 0, 1_000, 1))
    assert ((moved >= 0) & (moved < resolution)).all()


def test_ten_thousand_matches_of_one_instant_are_distinct_by_their_ids():
    hashes = np.random.default_rng(7).integers(0, 2**64, 10_000, dtype=np.uint64)
    times, slots = hashes_apart(np.full(len(hashes), TICK_US), hashes)
    assert len(set(zip(times.tolist(), slots.tolist(), strict=True))) == len(hashes)
    assert slots.max() < 64
