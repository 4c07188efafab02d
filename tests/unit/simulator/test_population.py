import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from astrocyte.simulator.population import claim, compact, exact_sum, exact_total, pack_bits, put, take


@pytest.mark.parametrize("slots", [1, 31, 32, 1000, 4096])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 1.0])
def test_compaction_lists_the_set_slots_in_order(slots: int, share: float) -> None:
    mask = np.random.default_rng(slots).random(slots) < share
    index, count = jax.jit(compact, static_argnums=1)(jnp.asarray(mask), 64)
    expected = np.flatnonzero(mask)
    assert int(count) == len(expected)
    np.testing.assert_array_equal(np.asarray(index)[: len(expected)], expected[:64])


def test_bits_are_packed_lowest_slot_first() -> None:
    mask = jnp.zeros(40, bool).at[jnp.array([0, 33])].set(True)
    assert [int(word) for word in pack_bits(mask)] == [1, 2]


def test_each_tile_has_one_winner_and_every_candidate_the_same_chance() -> None:
    luck = jnp.asarray(np.random.default_rng(1).integers(0, 2**32, (400, 8), dtype=np.uint32))
    tile = jnp.array([0, 0, 0, 0, 1, 1, 1, 1])
    won = np.asarray(jax.jit(jax.vmap(lambda word: claim(tile, word, jnp.ones(8, bool), 2)))(luck))
    assert (won[:, :4].sum(axis=1) == 1).all()
    assert (won[:, 4:].sum(axis=1) == 1).all()
    wins = won.sum(axis=0)
    assert stats.chisquare(wins[:4]).pvalue > 1e-3
    assert stats.chisquare(wins[4:]).pvalue > 1e-3


def test_slots_that_want_no_tile_get_none() -> None:
    want = jnp.array([False, True, False])
    won = claim(jnp.array([0, 0, 1]), jnp.array([9, 9, 9], jnp.uint32), want, 2)
    assert np.asarray(won).tolist() == [False, True, False]


@pytest.mark.parametrize("slots", [1, 97, 1024, 65_536])
def test_sums_are_exact_beyond_32_bits(slots: int) -> None:
    values = np.random.default_rng(slots).integers(-(2**24) + 1, 2**24, slots).astype(np.int32)
    for chosen in (values, np.full(slots, 2**24 - 1, np.int32), np.full(slots, -(2**24) + 1, np.int32)):
        assert exact_total(*exact_sum(jnp.asarray(chosen))) == int(chosen.astype(np.int64).sum())


def test_rows_are_taken_and_put_where_valid() -> None:
    values = jnp.arange(12.0).reshape(2, 6)
    rows = take(values, jnp.array([5, 0]))
    assert np.asarray(rows).tolist() == [[5.0, 0.0], [11.0, 6.0]]
    changed = put(values, jnp.array([1, 2]), -rows, jnp.array([True, False]))
    assert np.asarray(changed)[:, 1].tolist() == [-5.0, -11.0]
    assert np.asarray(changed)[:, 2].tolist() == [2.0, 8.0]
