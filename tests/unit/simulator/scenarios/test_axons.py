"""Spike trains against the theory of point processes, and the truth of planted coincidences (the seed is fixed)."""

import json

import numpy as np
import pytest
from scipy import stats

from astrocyte.scenario import MemorySink, simulate
from astrocyte.simulator.scenarios.axons.scenario import AxonsConfig

DOMAINS, TICKS, TICK_S = 96, 4500, 0.01  # as many domains as in the sample: they share compiled programs
CONFIG = AxonsConfig(
    domains=DOMAINS,
    tick_us=10_000,
    rate_hz=(5.0, 5.0, 5.0),
    branching=(0.0, 0.0, 0.6),
    decay_hz=(5.0, 5.0, 10.0),
    plant_hz=0.0,
)


@pytest.fixture(scope="module")
def spikes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Domain and time in seconds of every spike, by stream."""
    sink = MemorySink()
    simulate("axons", CONFIG, seed=21, ticks=TICKS, sink=sink, frame_ticks=100)
    found = {}
    for stream in ("axon_1", "axon_2", "axon_3"):
        frames = [frame for frame in sink.of(stream) if frame.num_rows]
        keys = np.concatenate([np.array(frame.column("key").to_pylist()) for frame in frames])
        domains = np.array([int(key[1:]) for key in keys])
        times = np.concatenate([frame.timestamps() for frame in frames]) - CONFIG.epoch_us
        found[stream] = (domains, times / 1e6)
    return found


def test_poisson_trains_have_their_rate_and_exponential_gaps(spikes: dict) -> None:
    domains, times = spikes["axon_1"]
    expected = 5.0 * DOMAINS * TICKS * TICK_S
    assert abs(len(times) - expected) < 4 * np.sqrt(expected)
    order = np.lexsort((times, domains))
    gaps = np.diff(times[order])[np.diff(domains[order]) == 0]
    # Gaps end within the run: those of its last two seconds would be truncated.
    started = times[order][:-1][np.diff(domains[order]) == 0] < TICKS * TICK_S - 3
    assert stats.kstest(gaps[started] * 5.0, "expon").pvalue > 1e-3


def test_hawkes_trains_have_the_rate_and_the_clustering_that_branching_gives(spikes: dict) -> None:
    domains, times = spikes["axon_3"]
    settled, window = 5.0, 5.0
    late = times >= settled
    bins = ((times[late] - settled) // window).astype(int)
    windows = int((TICKS * TICK_S - settled) // window)
    counts = np.bincount(domains[late] * windows + bins, minlength=DOMAINS * windows)
    rate = 5.0 / (1 - 0.6)
    error = counts.std() / np.sqrt(len(counts)) / window
    assert abs(counts.mean() / window - rate) < 4 * error
    fano = counts.var() / counts.mean()
    # Windows are 20 memory times long: the limit 1 / (1 - n)**2 is reached up to 5 %.
    assert abs(fano * (1 - 0.6) ** 2 - 1) < 0.05 + 4 * np.sqrt(2 / len(counts))


def test_rescaled_hawkes_gaps_are_exponential(spikes: dict) -> None:
    domains, times = spikes["axon_3"]
    tick = np.minimum((times / TICK_S).astype(int), TICKS - 1)
    counts = np.zeros((TICKS, DOMAINS))
    np.add.at(counts, (tick, domains), 1)
    keep = np.exp(-10.0 * TICK_S)
    excitation, total = np.zeros(DOMAINS), np.zeros(DOMAINS)
    rate, before = np.zeros((TICKS, DOMAINS)), np.zeros((TICKS, DOMAINS))
    for now in range(TICKS):
        rate[now], before[now] = 5.0 + excitation, total
        total = total + rate[now] * TICK_S
        excitation = excitation * keep + 0.6 * (1 - keep) / TICK_S * counts[now]
    passed = before[tick, domains] + rate[tick, domains] * (times - tick * TICK_S)
    order = np.lexsort((passed, domains))
    gaps = np.diff(passed[order])[np.diff(domains[order]) == 0]
    assert len(gaps) > 50_000
    assert stats.kstest(gaps, "expon").pvalue > 1e-3


def test_independent_trains_coincide_at_the_poisson_rate(spikes: dict) -> None:
    within, duration, rate = 0.02, TICKS * TICK_S, 5.0
    pairs = 0
    (domains_a, times_a), (domains_b, times_b) = spikes["axon_1"], spikes["axon_2"]
    for domain in range(DOMAINS):
        mine, theirs = times_a[domains_a == domain], times_b[domains_b == domain]
        pairs += int((np.searchsorted(theirs, mine + within) - np.searchsorted(theirs, mine - within)).sum())
    expected = DOMAINS * rate * rate * 2 * within * duration
    assert abs(pairs - expected) < 4 * np.sqrt(expected * (1 + 2 * within * 2 * rate))


def test_the_truth_names_the_planted_rows() -> None:
    sink = MemorySink()
    config = AxonsConfig(domains=DOMAINS, tick_us=10_000, rate_hz=(1.0, 1.0, 1.0), plant_hz=0.2)
    simulate("axons", config, seed=22, ticks=500, sink=sink)
    rows: dict[tuple[str, int], dict] = {}
    for stream in ("axon_1", "axon_2"):
        for frame in sink.of(stream):
            numbered = zip(frame.sequences().tolist(), frame.batch.to_pylist(), strict=True)
            rows |= {(stream, number): row for number, row in numbered}
    planted = [row for frame in sink.of("truth") for row in frame.batch.to_pylist()]
    expected = DOMAINS * 0.2 * 5
    assert 0.6 * expected < len(planted) < expected
    for truth in planted:
        first, second = (rows[stream, number] for stream, number in json.loads(truth["members"]))
        assert {first["type"], second["type"]} == {"A", "B"}
        assert first["key"] == second["key"] == truth["key"]
        assert second["timestamp"] == truth["timestamp"] == truth["until"]
        assert 0 <= second["timestamp"] - first["timestamp"] <= config.plant_within_us
        assert min(first["value"], second["value"]) / max(first["value"], second["value"]) > 0.9
        assert min(first["value"], second["value"]) >= 20
        assert truth["rule"] == "strong_A_and_B_within_2s"
