"""The pipeline as a graph."""

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.page.content.graph import graph_of
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.rule_files import read_rule_files


def test_topics_lead_by_rules_and_roles_to_stores():
    settings = load_settings(roles=("correlate", "sql", "influx", "control"), sql_url="postgresql://u:secret@db/a")
    graph = graph_of(read_rule_files(["cells"]), settings)
    nodes = {node["id"]: node for node in graph["nodes"]}
    edges = {tuple(edge) for edge in graph["edges"]}
    assert all(start in nodes and end in nodes for start, end in edges)
    # Every edge leads on, from the topics that are read to the stores.
    assert all(nodes[start]["column"] < nodes[end]["column"] for start, end in edges)
    assert ("role:repartition", "keyed.simulation_id.genome_data") in edges
    assert ("mono.population_metrics", "domains:0") in edges
    assert ("alerts", "role:sql") in edges
    assert ("results:0", "role:control") in edges
    assert "population_collapse" in nodes["domains:0"]["rules"]
    assert "secret" not in str(graph)


def test_without_settings_there_are_no_sinks_and_without_rules_nothing():
    kinds = {node["kind"] for node in graph_of(read_rule_files(["axons"]), None)["nodes"]}
    assert kinds == {"topic", "topics", "domains"}
    assert graph_of(RuleSet(), load_settings()) == {"nodes": [], "edges": []}


def test_the_topic_of_a_junction_that_forms_names_it_so_that_its_pairs_are_shown():
    text = """
rules:
  - {name: spike, seq: [{as: a, stream: A}], emit: {next: "a.next"}}
  - {name: heard, within: 1s, seq: [{as: w, stream: wave}, {as: o, stream: other}]}
junctions:
  - {name: wave, from: spike, key: next, forms: {with: A, over: 10s, above: 1, below: 1}}
  - {name: other, from: spike, key: next}
"""
    nodes = {node["id"]: node for node in graph_of(load_rules(text), None)["nodes"]}
    assert nodes["keyed.key.wave"]["junction"] == "wave"
    assert "junction" not in nodes["keyed.key.other"]
    assert "topology" in nodes
