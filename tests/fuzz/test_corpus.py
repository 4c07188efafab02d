"""Inputs that fuzzing has found, each read again within its limits; and a short search from the seeds."""

import random
from contextlib import suppress

import pytest

from tests.fuzz.child import mutants_of
from tests.fuzz.target import CORPUS, kept_inputs
from tests.fuzz.targets import TARGETS

SOME = 60


def read_all(target, inputs):
    read = target.open()
    for data in inputs:
        with suppress(*target.allowed):
            read(data)


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_seeds_and_some_mutants_are_read_or_refused(name):
    target = TARGETS[name]
    seeds = list(target.seeds())
    kept = [data for data, why in kept_inputs(name) if why]
    mutants = mutants_of([*seeds, *kept], random.Random(name), target)
    read_all(target, (data for _, data in zip(range(len(seeds) + len(kept) + SOME), mutants, strict=False)))


def test_every_kept_input_is_of_a_target():
    assert {path.stem for path in CORPUS.glob("*.jsonl")} <= set(TARGETS)
