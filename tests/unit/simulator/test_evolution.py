"""The birth, death and mutation mechanisms against exact results of population genetics (seeds are fixed)."""

import numpy as np
import pytest
from scipy.special import digamma
from scipy.stats import binom, entropy

from astrocyte.scenario import MemorySink, simulate
from tests.support.worlds import (
    GENERATIONS,
    INFINITE_ALLELES,
    MORAN,
    QUASISPECIES,
    WRIGHT_FISHER,
    DriftConfig,
    GenerationsConfig,
    MoranConfig,
    last_states,
    trace,
)

pytestmark = pytest.mark.time_limit(30, "runs thousands of generations")


def moran_fixation(slots: int, fitness: float) -> float:
    """Fixation probability of one mutant where one dies and the room goes to one of those who want a child, equally.

    A carrier always wants one, another with probability 1 / fitness. The chance of k carriers among m others is
    therefore the mean of k / (k + x), with x binomial: above k / (k + m / fitness), which parents in proportion to
    fitness have (Hindersin and Traulsen 2015, "death-birth"), most of all where few compete.
    """
    up, down = np.zeros(slots + 1), np.zeros(slots + 1)
    for carriers in range(1, slots):
        for carrier_dies, chance in ((True, carriers / slots), (False, 1 - carriers / slots)):
            left = carriers - carrier_dies
            want = np.arange(slots - left)
            weight = binom.pmf(want, slots - 1 - left, 1 / fitness)
            some = left + want > 0  # nobody wants one: the room waits for the next tick
            child = (weight[some] * left / (left + want[some])).sum() / weight[some].sum()
            up[carriers] += chance * child * (not carrier_dies)
            down[carriers] += chance * (1 - child) * carrier_dies
    return float(1 / (1 + np.cumprod(down[1:slots] / up[1:slots]).sum()))


def test_an_advantageous_mutant_fixes_with_the_probability_of_moran() -> None:
    slots, replicates, fitness = 8, 5000, 1.5
    config = MoranConfig(slots=slots, replicates=replicates, advantage=fitness - 1, carriers=-1.0)
    carriers = trace(MORAN, config, 11, 200, chunk_ticks=50)["carriers"][-1]
    expected = moran_fixation(slots, fitness)
    in_proportion = (1 - 1 / slots) * (1 - 1 / fitness) / (1 - fitness ** (1 - slots))
    error = np.sqrt(expected * (1 - expected) / replicates)
    assert np.isin(carriers, (0, slots)).mean() > 0.999
    measured = (carriers == slots).mean()
    assert abs(measured - expected) < 3 * error
    assert measured - in_proportion > 3 * error


def test_diversity_is_lost_at_the_rate_at_which_lineages_coalesce() -> None:
    # Each birth makes one of the N(N-1)/2 pairs identical by descent.
    slots, deaths, ticks, replicates = 32, 2, 60, 1500
    config = MoranConfig(slots=slots, replicates=replicates, deaths=deaths)
    share = trace(MORAN, config, 12, ticks)["carriers"] / slots
    diversity = 2 * share * (1 - share)
    keep = 1 - 2 * deaths / (slots * (slots - 1))
    expected = diversity[0].mean() * keep ** (ticks - 1)
    error = diversity[-1].std() / np.sqrt(replicates)
    assert abs(diversity[-1].mean() - expected) < 4 * error


def test_wright_fisher_drift_loses_heterozygosity_at_rate_one_over_n() -> None:
    slots, ticks, replicates = 200, 100, 3000
    share = trace(WRIGHT_FISHER, DriftConfig(slots=slots, replicates=replicates), 13, ticks)["carriers"] / slots
    variance = 0.25 * (1 - (1 - 1 / slots) ** ticks)
    assert abs(share[-1].mean() - 0.5) < 4 * np.sqrt(variance / replicates)
    assert abs((share[-1] * (1 - share[-1])).mean() / (0.25 * (1 - 1 / slots) ** ticks) - 1) < 0.04
    assert abs(share[-1].var() / variance - 1) < 4 * np.sqrt(2 / replicates)


def test_mutation_and_selection_balance_at_u_over_s() -> None:
    rate, cost = 0.004, 0.08
    config = MoranConfig(
        slots=32_768, replicates=3, death_rate=1 / 16, advantage=-cost, mutation=rate, carriers=rate / cost,
        births_capacity=4096,
    )  # fmt: skip
    share = trace(MORAN, config, 14, 400)["carriers"] / 32_768
    assert abs(share[100:].mean() / (rate / cost) - 1) < 0.08


def test_growth_and_extinction_are_those_of_a_branching_process() -> None:
    founders, birth, death, ticks, replicates = 4, 0.03, 0.02, 80, 2500
    config = MoranConfig(
        slots=128, replicates=replicates, birth_rate=birth, death_rate=death, founders=founders, births_capacity=32
    )
    alive = trace(MORAN, config, 15, ticks, chunk_ticks=20)["alive"][-1]
    mean = founders * ((1 - death) * (1 + birth)) ** ticks
    extinct = 0.0
    for _ in range(ticks):
        extinct = death + (1 - death) * ((1 - birth) * extinct + birth * extinct**2)
    extinct **= founders
    assert abs(alive.mean() - mean) < 4 * alive.std() / np.sqrt(replicates)
    assert abs((alive == 0).mean() - extinct) < 4 * np.sqrt(extinct * (1 - extinct) / replicates)


def test_lineages_in_the_emitted_births_coalesce_at_kingmans_rate() -> None:
    # One birth a tick: k lineages join with chance k(k-1) / N(N-1), and the whole population in (N-1)**2 on average.
    slots, replicates, ticks = 8, 600, 400
    sink = MemorySink()
    config = MoranConfig(slots=slots, replicates=replicates, carriers=0.5)
    simulate(MORAN, config, seed=16, ticks=ticks, sink=sink, group_islands=replicates, chunk_ticks=100)
    children, parents = [], []
    for frame in sink.of("test_births"):
        children.append(frame.column("cell_id").to_numpy())
        parents.append(frame.column("parent_id").to_numpy())
    child, parent = np.concatenate(children), np.concatenate(parents)
    place, mother = child & ((1 << 25) - 1), parent & ((1 << 25) - 1)
    island, slot, mother_slot = place // slots, place % slots, mother % slots
    lineages = np.ones((replicates, slots), bool)  # slots that hold ancestors of the final population
    joined = np.zeros(replicates)
    tick = child >> 25
    for back, now in enumerate(np.unique(tick)[::-1], 1):
        rows = tick == now
        where, own, from_ = island[rows], slot[rows], mother_slot[rows]
        carries = lineages[where, own]
        lineages[where, own] = False
        lineages[where[carries], from_[carries]] = True
        single = (lineages.sum(axis=1) == 1) & (joined == 0)
        joined[single] = back
    assert (joined > 0).mean() > 0.99
    found = joined[joined > 0]
    assert abs(found.mean() - (slots - 1) ** 2) < 4 * found.std() / np.sqrt(replicates) + 1


def test_an_advantageous_mutant_fixes_with_the_probability_of_kimura() -> None:
    slots, advantage, replicates = 60, 0.05, 10_000
    config = GenerationsConfig(slots=slots, replicates=replicates, advantage=advantage)
    carriers = trace(GENERATIONS, config, 17, 300, chunk_ticks=10)["carriers"][-1]
    assert np.isin(carriers, (0, slots)).mean() > 0.999
    kimura = (1 - np.exp(-2 * advantage)) / (1 - np.exp(-2 * slots * advantage))
    # The chain itself, whose fixation solves a linear system; Kimura's diffusion is its limit.
    fit = np.arange(slots + 1) * (1 + advantage)
    step = binom.pmf(np.arange(slots + 1), slots, (fit / (fit + slots - np.arange(slots + 1)))[:, None])
    inner = step[1:-1, 1:-1]
    exact = np.linalg.solve(np.eye(slots - 1) - inner, step[1:-1, -1])[0]
    assert abs(kimura / exact - 1) < 0.03
    measured = (carriers == slots).mean()
    assert abs(measured - exact) < 4 * np.sqrt(exact * (1 - exact) / replicates)


def test_the_master_sequence_has_eigens_frequency_and_is_lost_above_the_error_threshold() -> None:
    slots, fitter, genes = 20_000, 10.0, QUASISPECIES.genes
    classes = np.arange(genes + 1)

    def share(rate: float) -> float:
        # From class i to class j: some ones become zeros, some zeros become ones.
        spread = np.zeros((genes + 1, genes + 1))
        for ones in classes:
            kept, new = binom.pmf(classes, ones, 1 - rate), binom.pmf(classes, genes - ones, rate)
            spread[:, ones] = np.convolve(kept, new)[: genes + 1]
        values, vectors = np.linalg.eig(spread * np.where(classes == 0, fitter, 1.0))
        leading = np.abs(vectors[:, np.argmax(values.real)].real)
        return leading[0] / leading.sum()

    def simulated(rate: float, ticks: int) -> np.ndarray:
        config = GenerationsConfig(slots=slots, advantage=fitter - 1, mutation=rate)
        return trace(QUASISPECIES, config, 18, ticks, chunk_ticks=20)["carriers"][:, 0] / slots

    assert abs(simulated(0.01, 80)[20:].mean() / share(0.01) - 1) < 0.01
    assert np.log(fitter) / genes < 0.06
    assert simulated(0.06, 40)[-1] < 1e-3


def test_neutral_alleles_have_the_number_homozygosity_and_entropy_of_ewens() -> None:
    slots, replicates, sample, rate = 500, 400, 15, 0.004
    config = GenerationsConfig(slots=slots, replicates=replicates, mutation=rate)
    alleles = last_states(INFINITE_ALLELES, config, 19, 800)
    theta = 2 * slots * rate
    number = np.array([len(np.unique(row[:sample])) for row in alleles])
    shares = [np.unique(row, return_counts=True)[1] / slots for row in alleles]
    homozygosity = np.array([(share**2).sum() for share in shares])
    diversity = np.array([entropy(share) for share in shares])

    def near(values: np.ndarray, expected: float) -> bool:
        return bool(abs(values.mean() - expected) < 4 * values.std() / np.sqrt(replicates))

    assert near(number, (theta / (theta + np.arange(sample))).sum())
    assert near(homozygosity, 1 / (1 + theta))
    # The formula is of an infinite population; of 500, rare alleles are missing.
    assert abs(diversity.mean() / (digamma(theta + 1) - digamma(1)) - 1) < 0.04
