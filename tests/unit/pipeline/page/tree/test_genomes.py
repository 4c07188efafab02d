"""Genomes of a run: the newest sample of each, within a bound, and inherited where there is none."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from astrocyte.pipeline.page.tree.genomes import Genomes, genome_traits
from astrocyte.schemas.frames import Frame


def samples(ids, values, **more):
    columns = {
        "timestamp": np.arange(len(ids)), "key": ["0"] * len(ids), "cell_id": pa.array(ids, pa.int64()),
        "metabolism": np.asarray(values, np.float32),
    }  # fmt: skip
    return Frame.from_columns("genome_data", "run", columns | more)


def population(ids, first):
    return type("Population", (SimpleNamespace,), {"__len__": lambda self: len(self.ids)})(
        ids=np.asarray(ids), first=np.asarray(first)
    )


def test_the_newest_sample_of_each_counts_whether_it_came_before_or_after_a_question():
    genomes = Genomes("run")
    genomes.add(samples([7, 3, 7, None], [1.0, 2.0, 3.0, 9.0]))
    found = genomes.newest("metabolism")
    assert dict(zip(found.ids.tolist(), found.values.tolist(), strict=True)) == {3: 2.0, 7: 3.0}
    genomes.add(samples([3, 5], [4.0, 5.0]))
    found = genomes.newest("metabolism")
    assert dict(zip(found.ids.tolist(), found.values.tolist(), strict=True)) == {3: 4.0, 5: 5.0, 7: 3.0}


def test_who_has_no_sample_has_the_value_of_the_nearest_ancestor_with_one():
    genomes = Genomes("run")
    genomes.add(samples([10, 13], [1.0, 2.0]))
    # 10 -> 11 -> 12 -> 13 -> 14, and 20 -> 21 of whom nobody was sampled.
    tree = population([10, 20, 11, 12, 21, 13, 14], [-1, -1, 0, 2, 1, 3, 5])
    found = genomes.newest("metabolism").of(tree)
    np.testing.assert_array_equal(found, [1.0, np.nan, 1.0, 1.0, np.nan, 2.0, 2.0])


def test_without_samples_nothing_is_known():
    found = Genomes("run").newest("tpu_cores").of(population([1, 2], [-1, 0]))
    assert np.isnan(found).all()
    genomes = Genomes("run")
    genomes.add(samples([1], [1.0]))
    assert np.isnan(genomes.newest("tpu_cores").of(population([1], [-1]))).all()


def test_beyond_the_bound_those_who_are_kept_stay_and_get_newer_values():
    genomes = Genomes("run", most=3)
    genomes.add(samples([5, 6], [1.0, 1.0]))
    genomes.newest("metabolism")
    genomes.add(samples([1, 2, 3, 5], [2.0, 2.0, 2.0, 2.0]))
    found = genomes.newest("metabolism")
    assert dict(zip(found.ids.tolist(), found.values.tolist(), strict=True)) == {1: 2.0, 5: 2.0, 6: 1.0}
    assert genomes.left_out == 2


def test_traits_are_the_numbers_of_genomes_of_cells():
    assert set(genome_traits("evolutionary_events")) >= {"metabolism", "mutation_rate", "tpu_efficiency"}
    assert "neural_weights" not in genome_traits("evolutionary_events")
    assert genome_traits("kernel_geometry") == ()
