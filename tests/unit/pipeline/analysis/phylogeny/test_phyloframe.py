"""What is written is read by phyloframe, the field's library, with the same tree and the same figures.

It is no dependency of tests: it brings polars, scikit-learn and statsmodels, and a part of it is compiled when it is
installed (`pip install 'astrocyte[phylogeny]'`).
"""

from dataclasses import replace

import pytest

from astrocyte import phylogeny
from astrocyte.pipeline.bench.phylogeny import moran_frames
from tests.support.logs import frame_messages, write_log

pytestmark = [
    pytest.mark.time_limit(60, "phyloframe compiles its functions"),
    pytest.mark.filterwarnings("ignore"),  # phyloframe's own use of pandas
]

WHY = "the extra phylogeny is not installed"
pandas = pytest.importorskip("pandas", reason=WHY)
library = pytest.importorskip("phyloframe.legacy", reason=WHY)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    offsets = {}
    messages = [each for frame in moran_frames(3_000, 32) for each in frame_messages(frame, 1, offsets)]
    return phylogeny(write_log(tmp_path_factory.mktemp("moran") / "run.jsonl.zst", messages))


@pytest.fixture(scope="module")
def frame(found, tmp_path_factory):
    """The CSV as pandas reads it."""
    path = tmp_path_factory.mktemp("csv") / "tree.csv"
    found.write(path)
    return pandas.read_csv(path)


def parents_of(frame):
    numbers = frame["ancestor_list"].str.strip("[]")
    return {own: None if parent == "none" else int(parent) for own, parent in zip(frame["id"], numbers, strict=True)}


def test_the_csv_complies_with_the_standard(found, frame):
    assert library.alifestd_validate(frame)
    assert library.alifestd_is_asexual(frame)
    assert library.alifestd_is_topologically_sorted(frame)
    assert library.alifestd_is_chronologically_ordered(frame)
    assert len(frame) == len(found.tree) < len(found.everyone)


def test_the_library_prunes_everyone_to_the_same_tree(found, frame, tmp_path):
    replace(found, pruned=False).write(tmp_path / "everyone.csv")
    whole = pandas.read_csv(tmp_path / "everyone.csv")
    whole["extant"] = whole["destruction_time"] == float("inf")
    pruned = library.alifestd_prune_extinct_lineages_asexual(whole)
    assert sorted(pruned["id"]) == sorted(frame["id"])


@pytest.mark.parametrize("unit", ["time", "generation"])
def test_newick_is_read_as_the_same_forest_with_the_same_branches(found, frame, unit):
    read = library.alifestd_from_newick(b"".join(found.newick(unit)).decode(), allow_forest=True)
    label = dict(zip(read["id"], read["taxon_label"].astype(int), strict=True))
    parents = {
        label[own]: None if own == parent else label[parent]
        for own, parent in zip(read["id"], read["ancestor_id"], strict=True)
    }
    assert parents == parents_of(frame)
    at = dict(zip(frame["id"], frame["origin_time" if unit == "time" else "generation"], strict=True))
    scale = 1e6 if unit == "time" else 1
    for own, length in zip(read["id"], read["branch_length"], strict=True):
        parent = parents[label[own]]
        if parent is not None:
            assert length * scale == pytest.approx(at[label[own]] - at[parent])


def test_sackin_colless_and_the_common_ancestor_are_those_of_the_library(found, frame):
    branchings = library.alifestd_collapse_unifurcations(frame)
    branchings = library.alifestd_delete_unifurcating_roots_asexual(branchings)
    branchings = library.alifestd_assign_contiguous_ids(branchings)
    marked = library.alifestd_mark_sackin_index_asexual(branchings)
    roots = marked["ancestor_list"].str.lower().isin(["[none]", "[]"])
    shape = found.statistics()
    assert library.alifestd_count_leaf_nodes(frame) == shape.tips
    assert int(marked.loc[roots, "sackin_index"].sum()) == shape.sackin
    if library.alifestd_is_strictly_bifurcating_asexual(branchings):
        marked = library.alifestd_mark_colless_index_asexual(branchings)
        assert int(marked.loc[roots, "colless_index"].sum()) == shape.colless
    living = frame.loc[frame["destruction_time"] == float("inf"), "id"]
    assert library.alifestd_find_mrca_id_asexual(frame, list(living)) == found.mrca.id
