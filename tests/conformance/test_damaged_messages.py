"""Damaged messages, frames and logs of every kind: each is read or refused with a reason, and nothing dies or hangs."""

import pytest

from tests.support import mutants


def check(found: dict[str, dict[str, float]], count: int) -> None:
    for kind, result in found.items():
        assert 0 < result["letters"] < result["letters"] + result["received"], (
            f"{kind}: no mutant was refused, or none read"
        )
        assert result["letters"] > count / 20, f"{kind}: hardly a mutant was damaged"
        assert result["longest_s"] < 10, f"{kind}: a mutant took {result['longest_s']} s of processor time"


@pytest.mark.time_limit(60, "reads some hundred messages of nine kinds in a process of its own")
def test_damaged_messages_of_every_kind_are_read_or_refused():
    found = mutants.run("all", 0, 50, limit_s=250)
    assert set(found) == {*mutants.KINDS, *mutants.OTHERS}
    check(found, 50)


@pytest.mark.soak
@pytest.mark.parametrize("kind", [*mutants.KINDS, *mutants.OTHERS])
def test_many_damaged_messages_are_read_or_refused(kind, search_seed):
    check(mutants.run(kind, search_seed, 4000, limit_s=3000), 4000)
