import jax.numpy as jnp
import numpy as np

from astrocyte.simulator.rng import byte_normal, purpose_word, threefry2x32, tick_key, unit


def words(*values: int) -> list:
    return [jnp.uint32(value) for value in values]


def test_threefry_gives_the_known_answers_of_random123() -> None:
    known = [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ]
    for key, counter, expected in known:
        assert tuple(int(word) for word in threefry2x32(*words(*key), *words(*counter))) == expected


def test_units_are_inside_the_open_interval() -> None:
    assert float(unit(jnp.uint32(0))) > 0.0
    assert float(unit(jnp.uint32(0xFFFFFFFF))) < 1.0


def test_byte_normals_have_mean_zero_and_variance_one() -> None:
    lanes = jnp.arange(1 << 18, dtype=jnp.uint32)
    noise = np.asarray(byte_normal(threefry2x32(*words(1, 2), lanes, jnp.uint32(0))[0]), np.float64)
    assert abs(noise.mean()) < 4 / 512
    assert abs(noise.var() - 1) < 4 * np.sqrt(1.7) / 512
    assert np.abs(noise).max() < 3.46


def test_ticks_beyond_32_bits_have_their_own_numbers() -> None:
    seed = jnp.array([7, 0], jnp.uint32)
    early = tick_key(seed, *words(5, 0))
    late = tick_key(seed, *words(5, 1))
    assert int(early[0]) != int(late[0])


def test_purposes_have_the_same_distinct_words_in_every_process() -> None:
    assert purpose_word("birth") == 0x3CB1821F
    assert purpose_word("birth") != purpose_word("death")
