"""Rule files that are typed are checked as `rules check` does, and problems are at their places."""

import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.problems import InvalidRules
from astrocyte.pipeline.page.rules.check import check_text, outline
from astrocyte.pipeline.page.rules.in_force import InForce, ruleset_of_text
from astrocyte.schemas.errors import InvalidRule
from tests.support.pair_log import PAIR
from tests.support.world_log import RULES

OTHER = PAIR.replace("name: pair", "name: other")


def check(text, name="pairs", **others):
    return check_text(InForce({"pairs": PAIR, **others}), name, text)


@pytest.mark.parametrize(
    "edit",
    [
        ("within: 2s", "wihtin: 2s"),
        ("type == 'A'", "type = 'A'"),
        ("type == 'A'", "valu > 'x"),
        ("by: key", "by: [key"),
        ("axon_1", "axon_1, as: z"),
        ("a.value + b.value", "a.value + c.value"),
    ],
)
def test_problems_are_those_of_a_rule_file_at_their_line_and_column(edit):
    text = PAIR.replace(*edit)
    with pytest.raises(InvalidRules) as refused:
        load_rules(text)
    found = check(text)["problems"]
    assert [(each["text"], each["line"], each["column"]) for each in found] == [
        (str(each), each.line, each.column) for each in refused.value.problems
    ]
    assert found[0]["line"] is not None


def test_a_valid_text_has_no_problem_and_its_automata_are_given():
    found = check(RULES, name="new")
    assert (found["problems"], found["warnings"]) == ([], [])
    (rule,) = found["rules"]
    assert rule["nodes"][0]["kind"] == "start"
    assert any(edge["kind"] == "take" and "total_population" in edge["text"] for edge in rule["edges"])
    assert found["plan"]


def test_a_name_of_another_file_is_refused():
    assert "pair" in check(OTHER + PAIR.replace("\nrules:\n", ""), name="pairs")["rules"][1]["name"]
    found = check(PAIR.replace("name: pair", "name: third"), pairs_2=PAIR.replace("name: pair", "name: third"))
    assert "third" in found["problems"][0]["message"]


def test_a_stream_that_is_nearly_another_one_is_a_warning():
    (warning,) = check(PAIR.replace("stream: axon_1,", "stream: axon_11,"))["warnings"]
    assert "did you mean 'axon_1'" in warning


def test_a_text_is_never_read_as_the_name_of_a_file(tmp_path):
    file = tmp_path / "secret.yaml"
    file.write_text(PAIR)
    with pytest.raises(InvalidRule):
        ruleset_of_text(str(file))
    assert check(str(file))["rules"] == []


def test_the_outline_tells_where_each_rule_stands():
    rules = "# head\nrules:\n  - name: one\n    by: key\n\n  # of two\n  - name: two\n    any: []\n"
    text = rules + "windows:\n  - name: w\n    from: x\n"
    assert outline(text) == [
        {"kind": "rule", "name": "one", "line": 3, "last": 4},
        {"kind": "rule", "name": "two", "line": 7, "last": 8},
        {"kind": "window", "name": "w", "line": 10, "last": 11},
    ]
    assert outline("rules: [") == []
    assert outline("- a") == []


def test_what_was_published_counts_more_than_the_files():
    in_force = InForce({"pairs": PAIR}, {"live": PAIR.replace("2s", "3s"), "bad": "rules: ["})
    (rule,) = in_force.ruleset().rules
    assert rule.within.time == 3_000_000
    edited = in_force.with_text("live", OTHER).checked("live")
    assert sorted(rule.name for rule in edited.rules) == ["other", "pair"]
    assert in_force.with_text("pairs", OTHER).text("pairs") == OTHER
    with pytest.raises(InvalidRule):
        in_force.with_text("bad", "rules: [").checked("bad")
    (warning,) = check_text(in_force, "live", OTHER)["warnings"]
    assert "'pair' is not in the text any more and stays in force" in warning


def test_what_is_tried_of_a_broker_is_what_publishing_would_bring_into_force():
    published = {"two": PAIR.replace("2s", "3s"), "pairs": PAIR.replace("2s", "4s")}
    in_force = InForce({"pairs": PAIR}, {"two": published["two"]}, publishes=True)

    def within(of):
        (rule,) = of.ruleset().rules
        return rule.within.time // 1_000_000

    assert (within(in_force), within(in_force.with_text("pairs", PAIR.replace("2s", "5s")))) == (3, 5)
    newer = InForce({"pairs": PAIR}, published, publishes=True)
    assert (within(newer), within(newer.with_text("two", PAIR.replace("2s", "6s")))) == (4, 6)
    assert within(InForce.of_json(newer.as_json()).with_text("pairs", PAIR.replace("2s", "7s"))) == 7
    assert newer.text_of("pair") == published["pairs"]


def test_the_page_says_which_file_a_rule_in_force_is_from():
    in_force = InForce({"pairs": PAIR}, {"two": PAIR}, publishes=True)
    (warning,) = check_text(in_force, "pairs", PAIR)["warnings"]
    assert warning == (
        "rule 'pair' is also in the published file 'two', which is in force now; once it is published, this text "
        "overrides it"
    )
    (warning,) = check_text(in_force, "two", PAIR)["warnings"]
    assert warning == "rule 'pair' is also in the file 'pairs', which this one overrides"
    assert check_text(in_force.with_text("other", OTHER), "other", OTHER)["warnings"] == []
    (warning,) = check_text(InForce({"pairs": PAIR}, publishes=True), "pairs", OTHER)["warnings"]
    assert "'pair' is not in the text any more and stays in force: the file 'pairs' has it" in warning
