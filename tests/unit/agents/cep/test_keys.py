"""Key numbers: each string has one, however it is encoded, and numbers without references are reused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from astrocyte.agents.cep.keys import KeyTable


def numbers(table, column):
    selected = table.select(column, np.ones(len(column), np.uint64), np.zeros(len(column), np.int64), 0)
    return dict(zip(selected.rows.tolist(), selected.key.tolist(), strict=True))


def test_equal_strings_have_equal_numbers_in_every_encoding():
    table = KeyTable(room=2)
    strings = ["a", "b", None, "a", "", "ä" * 50]
    plain = numbers(table, pa.array(strings))
    assert 2 not in plain
    assert plain[0] == plain[3]
    assert len(set(plain.values())) == 4
    assert numbers(table, pa.array(strings).dictionary_encode()) == plain
    assert numbers(table, pa.array(["x", *strings]).dictionary_encode().slice(1)) == plain
    assert table.number("b") == plain[1]


def test_rows_without_any_key_are_left_out():
    table = KeyTable()
    none = pa.DictionaryArray.from_arrays(pa.array([None, None], pa.int32()), pa.array([], pa.utf8()))
    assert numbers(table, none) == {}
    null = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), pa.array([None, "a"], pa.utf8()))
    assert list(numbers(table, null)) == [1]


def test_a_dictionary_seen_again_has_the_same_codes_and_a_similar_one_its_own():
    table = KeyTable()
    strings = pa.array(["a", "b"])
    first = numbers(table, pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), strings))
    again = numbers(table, pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), strings))
    assert (again[0], again[1]) == (first[1], first[0])
    part = numbers(table, pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), strings.slice(1)))
    assert part[0] == first[1]


def test_number_keys_are_their_decimal_strings():
    table = KeyTable()
    assert numbers(table, pa.array([7, 8])) == numbers(table, pa.array(["7", "8"]))


def test_only_rows_with_a_predicate_bit_are_selected():
    table = KeyTable()
    selected = table.select(pa.array(["a", "b", "c"]), np.array([0, 5, 1], np.uint64), np.array([1, 2, 3]), 100)
    assert selected.rows.tolist() == [1, 2]
    assert selected.ref.tolist() == [101, 102]
    assert selected.t.tolist() == [2, 3]
    assert selected.mask.tolist() == [5, 1]
    assert len(table) == 2


def test_table_grows_and_keeps_numbers_and_strings():
    table = KeyTable(room=1)
    strings = [f"key-{number}" for number in range(5_000)]
    given = numbers(table, pa.array(strings))
    assert sorted(given.values()) == list(range(5_000))
    assert table.strings(np.array([given[row] for row in range(5_000)], np.int32)).to_pylist() == strings


def test_snapshot_restores_to_the_same_numbers():
    table = KeyTable(room=1)
    strings = pa.array([f"key-{number}" for number in range(100)])
    given = numbers(table, strings)
    other = KeyTable()
    other.restore({name: array.copy() for name, array in table.snapshot().items()})
    assert numbers(other, strings) == given
    assert len(other) == 100


def test_a_number_is_reused_once_nothing_refers_to_it():
    table = KeyTable()
    given = numbers(table, pa.array(["held", "gone", "new"]))
    assert table.recycle(np.array([True, False, True])) == 1
    assert len(table) == 2
    again = numbers(table, pa.array(["fresh", "held", "new"]))
    assert (again[0], again[1], again[2]) == (given[1], given[0], given[2])
    assert table.strings(np.array([again[0]], np.int32)).to_pylist() == ["fresh"]


def test_memory_follows_the_strings_that_are_alive():
    table = KeyTable(room=16, least=100)
    peak = 0
    for start in range(0, 100_000, 1_000):
        given = numbers(table, pa.array([f"string-{number}" for number in range(start, start + 1_000)]))
        if table.due:
            live = np.zeros(table.numbers, np.bool_)
            live[given[0]] = True
            table.recycle(live)
        peak = max(peak, table.nbytes)
    assert peak < 500_000
    assert len(table) <= 2_000
    size = sum(array.nbytes for array in table.snapshot(np.arange(table.numbers) == given[999]).values())
    assert size < 100


def test_a_snapshot_of_the_live_strings_restores_their_numbers_and_frees_the_others():
    table = KeyTable(room=1)
    given = numbers(table, pa.array(["a", "b", "", "d", "e"]))
    live = np.zeros(table.numbers, np.bool_)
    live[[given[2], given[3]]] = True
    other = KeyTable(room=1)
    other.restore(table.snapshot(live))
    assert len(other) == 2
    assert other.strings(np.array([given[2], given[3]], np.int32)).to_pylist() == ["", "d"]
    again = numbers(other, pa.array(["x", "d", "y", ""]))
    assert (again[1], again[3]) == (given[3], given[2])
    assert {again[0], again[2]} == {given[0], given[1]}


@pytest.mark.parametrize("seed", range(3))
def test_recycled_tables_keep_their_strings(seed):
    rng = np.random.default_rng(seed)
    table = KeyTable(room=1)
    for _ in range(30):
        strings = [f"k{number}" for number in rng.integers(0, 400, 100)]
        given = numbers(table, pa.array(strings))
        order = np.array([given[row] for row in range(100)], np.int32)
        assert table.strings(order).to_pylist() == strings
        table.recycle(rng.random(table.numbers) < 0.3)
