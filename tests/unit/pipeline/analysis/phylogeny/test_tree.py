"""The tree: who is in it, its shape and its forms, held to a reference that goes from one to the next."""

import csv
import io
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte import phylogeny
from astrocyte.pipeline.analysis.phylogeny.population import NEVER_US, Population
from astrocyte.pipeline.analysis.phylogeny.records import PEDIGREES, InvalidLineage
from astrocyte.pipeline.analysis.phylogeny.tree import Phylogeny
from astrocyte.pipeline.analysis.phylogeny.write import csv_blocks
from astrocyte.schemas.errors import InvalidSettings
from tests.support.lineages import birth, cells_log, death, read_newick
from tests.support.logs import T0_US


@dataclass(eq=False)
class Node:
    """One of the reference: parents are nodes, children too."""

    id: int
    parents: list["Node"]
    origin_us: int
    alive: bool
    children: list["Node"] = field(default_factory=list)

    def lives_on(self) -> bool:
        """Whether it or a descendant is alive."""
        return self.alive or any(child.lives_on() for child in self.children)

    def kept(self) -> list["Node"]:
        return [child for child in self.children if child.lives_on()]

    def tips(self) -> list["Node"]:
        kept = self.kept()
        return [tip for child in kept for tip in child.tips()] if kept else [self]

    def path(self) -> list["Node"]:
        """From the founder down to itself, over first parents."""
        return [*(self.parents[0].path() if self.parents else []), self]


@st.composite
def populations(draw, most_parents=1):
    fewest = draw(st.integers(0, 1))  # 1: a single founder
    nodes = []
    for row in range(draw(st.integers(1, 25))):
        rows = st.integers(max(0, row - 6), max(0, row - 1))
        drawn = draw(st.lists(rows, min_size=fewest, max_size=most_parents, unique=True)) if row else []
        parents = [nodes[at] for at in drawn]
        latest = max((parent.origin_us for parent in parents), default=T0_US)
        before = nodes[-1].origin_us if nodes else T0_US
        origin_us = max(latest, before) + draw(st.integers(0, 3)) * 500_000
        node = Node(draw(st.integers(0, 9)) + 10 * (25 - row), parents, origin_us, draw(st.booleans()))
        for parent in parents:
            parent.children.append(node)
        nodes.append(node)
    return nodes


def as_tree(nodes, *, pruned=True):
    row_of = {node.id: row for row, node in enumerate(nodes)}
    parents = [[*(row_of[parent.id] for parent in node.parents), -1, -1][:2] for node in nodes]
    depth = [0] * len(nodes)
    for row, node in enumerate(nodes):
        depth[row] = 1 + max((depth[row_of[parent.id]] for parent in node.parents), default=-1)
    everyone = Population(
        ids=np.array([node.id for node in nodes]),
        first=np.array([first for first, _ in parents]),
        second=np.array([second for _, second in parents]),
        origin_us=np.array([node.origin_us for node in nodes]),
        died_us=np.array([NEVER_US if node.alive else nodes[-1].origin_us for node in nodes]),
        generation=np.array(depth, np.int32),
        depth=np.array(depth, np.int32),
        born=np.ones(len(nodes), np.bool_),
        traits={},
        first_us=T0_US,
        at_us=nodes[-1].origin_us,
    )
    return Phylogeny(PEDIGREES["evolutionary_events"], "run-1", everyone, pruned)


@given(populations(most_parents=2))
@settings(max_examples=60)
def test_the_pruned_tree_holds_those_who_live_and_their_ancestors(nodes):
    expected = {node.id: {parent.id for parent in node.parents} for node in nodes if node.lives_on()}
    tree = as_tree(nodes)
    if not expected:
        with pytest.raises(InvalidLineage, match="nothing is left of the pruned tree"):
            tree.table()
        return
    found = {row["id"]: set(row["ancestor_list"]) for row in tree.table().to_pylist()}
    assert found == expected
    assert tree.summary()["lineages"] == sum(not node.parents for node in nodes if node.lives_on())


@given(populations(most_parents=2))
@settings(max_examples=40)
def test_the_csv_read_back_says_the_same_as_the_table(nodes):
    tree = as_tree(nodes, pruned=False)
    text = b"".join(csv_blocks(tree.table())).decode()
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    expected = [
        {
            "id": str(node.id),
            "ancestor_list": "[" + (",".join(str(parent.id) for parent in node.parents) or "none") + "]",
            "origin_time": str(node.origin_us),
            "destruction_time": "inf" if node.alive else str(nodes[-1].origin_us),
            "simulation_id": "run-1",
        }
        for node in nodes
    ]
    assert [{name: row[name] for name in expected[0]} for row in read] == expected


@pytest.mark.parametrize("unit", ["time", "generation"])
@given(nodes=populations(), pruned=st.booleans())
@settings(max_examples=40)
def test_newick_read_back_is_the_tree(unit, nodes, pruned):
    nodes = nodes if not pruned else [*nodes, Node(9_999, [], nodes[-1].origin_us, alive=True)]
    tree = as_tree(nodes, pruned=pruned)
    expected = {}
    for node in nodes:
        if not pruned or node.lives_on():
            parent = node.parents[0] if node.parents else None
            length = None if parent is None else (node.origin_us - parent.origin_us) / 1e6 if unit == "time" else 1
            expected[node.id] = (None if parent is None else parent.id, length)
    assert read_newick(b"".join(tree.newick(unit)).decode()) == expected


@given(populations())
@settings(max_examples=60)
def test_the_shape_and_the_common_ancestor_are_those_of_a_walk_over_the_tree(nodes):
    founders = [node for node in nodes if not node.parents and node.lives_on()]
    tree = as_tree(nodes)
    if not founders:
        assert tree.statistics() is None
        return
    tips = [tip for founder in founders for tip in founder.tips()]
    kept = [node for node in nodes if node.lives_on()]
    branching = [node for node in kept if len(node.kept()) > 1]
    shape = tree.statistics("time")
    assert shape.tips == len(tips)
    assert shape.sackin == sum(len([node for node in tip.path() if node in branching]) for tip in tips)
    if any(len(node.kept()) > 2 for node in kept):
        assert shape.colless is None
    else:
        sides = [[len(child.tips()) for child in node.kept()] for node in branching]
        assert shape.colless == sum(abs(one - other) for one, other in sides)
    lengths = [node.origin_us - node.parents[0].origin_us for node in kept if node.parents]
    assert shape.total_length == pytest.approx(sum(lengths) / 1e6)

    if len(founders) > 1:
        assert tree.mrca is None
        assert shape.mean_pair_distance is None
        return
    shared = set.intersection(*(set(node.path()) for node in nodes if node.alive))
    nearest = max((node for node in nodes if node in shared), key=lambda node: len(node.path()))
    assert tree.mrca.id == nearest.id
    assert tree.mrca.depth == len(nearest.path()) - 1
    ways = [
        one.origin_us + other.origin_us - 2 * max(n.origin_us for n in one.path() if n in other.path())
        for at, one in enumerate(tips)
        for other in tips[:at]
    ]
    assert shape.mean_pair_distance == (pytest.approx(sum(ways) / len(ways) / 1e6) if ways else None)


def test_at_an_instant_later_births_are_not_and_later_deaths_have_not_been(tmp_path):
    events = [birth(1, 2, 1, 1), birth(3, 3, 2, 2), death(4, 2, 1), birth(6, 4, 3, 3)]
    log = cells_log(tmp_path / "run.jsonl.zst", events)
    at = phylogeny(log, at_us=T0_US + 3_500_000)
    assert at.table()["id"].to_pylist() == [1, 2, 3]
    assert at.table()["destruction_time"].null_count == 3
    assert phylogeny(log, at_us=T0_US + 4_000_000).summary()["deaths"] == 1
    with pytest.raises(InvalidSettings, match="there is no event yet: those of run 'run-1' are from"):
        phylogeny(log, at_us=T0_US)


def kernel(at_s, number, parents, kind="bred", generation=1):
    born_us = T0_US + round(at_s * 1e6)
    return {
        "timestamp": born_us, "type": kind, "kernel_id": number, "parent_kernels": parents, "generation": generation,
        "spawned_at": born_us,
    }  # fmt: skip


def test_two_parents_are_in_the_table_and_newick_needs_the_first_alone(tmp_path):
    events = [kernel(1, 1, "[]", "spawned", 0), kernel(1, 2, "[]", "spawned", 0), kernel(2, 3, '["1", "2"]')]
    log = cells_log(tmp_path / "kernels.jsonl.zst", events, stream="kernel_geometry")
    found = phylogeny(log)
    assert found.table()["ancestor_list"].to_pylist() == [[], [], [1, 2]]
    assert b'3,"[1,2]",' in b"".join(csv_blocks(found.table()))
    assert found.mrca is None
    assert found.statistics() is None
    with pytest.raises(InvalidLineage, match=r"1 kernels have two parents, such as 3 with 1 and 2.*--first-parent"):
        found.newick()
    assert b"".join(phylogeny(log, first_parent=True).newick()) == b"(3:1)1;\n2;\n"
