"""The automaton of a rule as nodes and edges, and the Mermaid text that is made of it."""

from astrocyte.agents.cep.explain.automaton import automaton
from astrocyte.agents.cep.explain.mermaid import mermaid
from astrocyte.agents.loading import load_rules

SEQUENCE = """
rules:
  - name: rising
    by: key
    within: 5s
    seq:
      - {as: low, stream: s, where: "v < 1"}
      - {as: high, stream: s, where: "v > low.v"}
    alert: {severity: info, message: "x"}
    cool_down: 1m
"""
ABSENCE = """
rules:
  - name: silent
    by: key
    within: 5s
    seq:
      - {as: call, stream: s}
      - not: {as: answer, stream: t}
"""
ALL = """
rules:
  - name: together
    by: key
    within: 5s
    all:
      - {as: a, stream: s}
      - not: {as: b, stream: t, where: "v > 1"}
      - {as: c, stream: u}
"""


def graph_of(text):
    (rule,) = load_rules(text).rules
    return automaton(rule), mermaid(rule)


def test_a_sequence_leads_from_the_start_to_the_match():
    graph, text = graph_of(SEQUENCE)
    assert [node.kind for node in graph.nodes].count("start") == 1
    assert [node.kind for node in graph.nodes].count("final") == 1
    taken = [edge.text for edge in graph.edges if edge.kind == "take"]
    assert taken[0].startswith("low: s: v < 1")
    assert any("v > low.v" in each for each in taken)
    assert any(edge.kind == "ignore" and edge.source == edge.target for edge in graph.edges)
    assert graph.within == "the whole match within 5s"
    assert graph.remarks == ("after an alert, no other of the same key for 1m",)
    assert text.startswith("%% rule rising")
    assert "%% after an alert" in text
    assert "flowchart LR" in text


def test_an_absence_is_decided_by_time_and_by_a_state_that_stops():
    graph, text = graph_of(ABSENCE)
    (wait,) = (edge for edge in graph.edges if edge.kind == "time")
    assert wait.text == "5s since the first event"
    assert any(node.kind == "stop" and node.lines == ("forbidden answer: stop",) for node in graph.nodes)
    assert {edge.target for edge in graph.edges} <= {node.name for node in graph.nodes}
    assert 'match(("match"))' in text


def test_the_steps_of_an_all_are_parts_of_its_match():
    graph, text = graph_of(ALL)
    assert graph.nodes[0].lines == ("all, less than 5s apart", "pairing: once")
    assert [edge.kind for edge in graph.edges] == ["part", "none_of", "part"]
    assert "-. none of .-x match" in text
