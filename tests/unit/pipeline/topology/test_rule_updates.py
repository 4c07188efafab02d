import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.pipeline.topology.rule_files import join_rule_sets
from astrocyte.pipeline.topology.rule_updates import LiveRules
from astrocyte.schemas.errors import InvalidRule

BASE = "rules: [{name: one, within: 1s, seq: [{as: a, stream: axon_1}]}]"


def rule(name: str, where: str) -> bytes:
    return f"rules: [{{name: {name}, within: 1s, seq: [{{as: a, stream: axon_1, where: '{where}'}}]}}]".encode()


def versions(ruleset) -> dict[str, str]:
    return {each.name: each.content_version for each in ruleset.rules}


def test_a_message_adds_a_rule_and_leaves_the_version_of_the_others():
    live = LiveRules(load_rules(BASE))
    before = versions(live.ruleset)
    change = live.apply("mine", rule("two", "value > 1"))
    assert change.refused is None
    assert set(versions(live.ruleset)) == {"one", "two"}
    assert versions(live.ruleset)["one"] == before["one"]


def test_a_message_replaces_a_rule_of_the_files_and_an_empty_one_restores_it():
    live = LiveRules(load_rules(BASE))
    before = versions(live.ruleset)
    live.apply("mine", rule("one", "value > 1"))
    assert versions(live.ruleset)["one"] != before["one"]
    live.apply("mine", None)
    assert versions(live.ruleset) == before


def test_a_broken_rule_is_refused_with_its_reason_and_the_old_one_stays():
    live = LiveRules(load_rules(BASE))
    live.apply("mine", rule("two", "value > 1"))
    before = versions(live.ruleset)
    for broken in (b"rules: [{name: two}]", b"\xff\xfe", b"rules: {", rule("two", "value >")):
        change = live.apply("mine", broken)
        assert change.refused
        assert versions(live.ruleset) == before


def test_a_rule_that_cannot_run_is_refused_by_its_engine():
    def refuse(_ruleset):
        from astrocyte.schemas.errors import InvalidRule

        raise InvalidRule("this domain cannot run it")

    live = LiveRules(load_rules(BASE), accept=refuse)
    assert live.apply("mine", rule("two", "value > 1")).refused == "this domain cannot run it"
    assert set(versions(live.ruleset)) == {"one"}


def test_a_published_window_of_the_name_of_a_rule_is_refused_in_the_words_of_a_rule_file():
    live = LiveRules(load_rules(BASE))
    window = b"windows: [{name: one, from: axon_1, every: 1s, select: {n: count()}}]"
    refused = live.apply("mine", window).refused
    assert "'one'" in refused
    assert "pydantic" not in refused
    assert "validation error" not in refused
    with pytest.raises(InvalidRule, match="cannot be combined") as raised:
        join_rule_sets([load_rules(BASE), load_rules(window.decode())])
    assert "pydantic" not in str(raised.value)


def where_of(ruleset, name: str) -> str:
    return next(each for each in ruleset.rules if each.name == name).seq[0].where


def test_of_two_published_files_with_one_rule_the_newest_message_wins_also_after_compaction():
    messages = [("a", rule("two", "value > 1")), ("b", rule("two", "value > 2")), ("a", rule("two", "value > 3"))]
    followed, started = LiveRules(load_rules(BASE)), LiveRules(load_rules(BASE))
    for each in messages:
        followed.apply(*each)
    for each in messages[1:]:  # the first message is compacted away
        started.apply(*each)
    assert where_of(followed.ruleset, "two") == where_of(started.ruleset, "two") == "value > 3"
    followed.apply("a", None)
    assert where_of(followed.ruleset, "two") == "value > 2"


def test_the_log_says_which_file_a_rule_in_force_is_from(caplog):
    caplog.set_level("INFO")
    live = LiveRules(load_rules(BASE))

    def said(key: str, text: bytes | None) -> list[str]:
        caplog.clear()
        live.apply(key, text)
        live.log_origins()
        return [each.getMessage() for each in caplog.records]

    assert said("mine", rule("two", "value > 1")) == []
    assert said("other", rule("one", "value > 1")) == [
        "in force: rule 'one' is that of the published file 'other', and not that of the worker's own files"
    ]
    assert said("third", rule("two", "value > 2")) == [
        "in force: rule 'two' is that of the published file 'third', and not that of the published file 'mine'"
    ]
    assert said("third", rule("two", "value > 3")) == []
    assert said("third", None) == ["in force: rule 'two' is that of the published file 'mine' again"]
