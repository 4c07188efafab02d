"""Rule files say what they mean: what YAML would drop, join or expand is refused with its lines."""

import pytest

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import InvalidRules, Window

STEP = "rules:\n  - name: r\n    seq:\n      - as: a\n        stream: A\n"


def problems(text):
    with pytest.raises(InvalidRules) as caught:
        load_rules(text)
    return [(found.line, str(found)) for found in caught.value.problems]


def test_every_repeated_key_is_reported_with_both_lines():
    text = STEP + "        where: 'value > 3'\n        where: 'x == 1'\n    name: q\nrules: []\n"
    found = problems(text)
    assert [line for line, _ in found] == [7, 8, 9]
    assert "'where' is given twice, in line 6 and in line 7" in found[0][1]
    assert "'rules' is given twice, in line 1 and in line 9" in found[2][1]


def test_a_key_beside_a_merged_mapping_is_not_a_repetition():
    text = "rules:\n  - &r {name: r, seq: [{as: a, stream: A}]}\n  - {<<: *r, name: q}\n"
    assert [rule.name for rule in load_rules(text).rules] == ["r", "q"]


@pytest.mark.parametrize("opening", [">\n          ", '"', "'"])
def test_a_comment_in_joined_lines_is_refused_unless_it_is_in_the_last(opening):
    close = opening if opening in "'\"" else ""
    inside = f"        where: {opening}value > 3{{}}\n          and x == 1{{}}{close}\n"
    ((line, message),) = problems(STEP + inside.format("  # degrees", ""))
    assert line == 6
    assert "write |" in message
    rules = load_rules(STEP + inside.format("", "  # degrees"))
    assert rules.rules[0].condition(rules.rules[0].steps[0]) is not None


def test_a_comment_in_a_block_ends_with_its_line():
    text = STEP + "        where: |\n          value > 30   # degrees\n          and room == 'kitchen'\n"
    plain = STEP + "        where: \"value > 30 and room == 'kitchen'\"\n"
    found, wanted = (load_rules(each).rules[0] for each in (text, plain))
    assert found.condition(found.steps[0]) == wanted.condition(wanted.steps[0])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("010", "YAML reads 010 as an octal number, as 8; write it without the zero, or 8 for that number"),
        ("[1, 017]", "YAML reads 017 as an octal number, as 15"),
        ("1:30", "YAML reads 1:30 in base 60, as 90; write 90, or put it in quotation marks for text"),
    ],
)
def test_an_integer_that_yaml_reads_in_another_base_is_refused_with_the_right_spelling(value, message):
    ((line, found),) = problems(f"{STEP}        times: {value}\n")
    assert line == 6
    assert message in found
    assert load_rules(f"{STEP}        times: 0x10\n    within: 5s\n").rules[0].steps[0].times == 16


NINE = "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True))
MERGED = "".join(
    f"{b}: &{b} {{<<: [{', '.join(['*' + a] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MANY = "expected at most 200,000 values, aliases written out"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("rules: &a [*a]\n", 1, "an alias is inside the value that it names"),
        ("rules:\n- &a {name: r, by: {in: *a}}\n", 2, "an alias is inside the value that it names"),
        ("&a {*a : 1}\n", 1, "an alias is inside the value that it names"),
        ("a: &a [x]\n" + NINE, 7, MANY),
        ("a: &a [x]\n" + NINE + "? *k\n: 1\n", 7, MANY),
        ("a: &a {x: 1}\n" + MERGED + "rules: *i\n", 6, MANY),
        ("rules:\n " + "[" * 5000, 2, "nested too deeply; at most 64 levels"),
        ("rules: " + "{a: " * 900 + "1" + "}" * 900, 1, "nested too deeply; at most 64 levels"),
        ("\n".join(" " * depth + "a:" for depth in range(900)), 64, "nested too deeply; at most 64 levels"),
        ("a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40, 2, "nested too deeply"),
        ("rules: []\n" + "# a comment\n" * 100_000, None, "expected at most 1,000,000 characters"),
        ("rules: [{name: r, version: 2026-13-45}]\n", None, "quotation marks"),
        ("rules: \0", None, "not YAML"),
        ("rules: []\n---\nrules: []\n", 2, "another document"),
        ("? [a]\n: 1\n", 1, "not YAML"),
    ],
)  # fmt: skip
def test_what_yaml_cannot_hold_or_is_too_much_is_a_problem_of_one_line(text, line, message):
    ((found_line, found),) = problems(text)
    assert message in found
    assert found_line == line
    assert "\n" not in found


def test_a_file_that_is_too_long_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "rules.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidRules, match="expected at most 1,000,000 characters"):
        load_rules(path)


def test_an_error_names_the_first_of_very_many_problems():
    with pytest.raises(InvalidRules) as caught:
        load_rules("".join(f"a{number}: 1\n" for number in range(2000)))
    assert len(caught.value.problems) == 2000
    assert str(caught.value).endswith("\nand 1,950 more problems")
    with pytest.raises(InvalidRules) as caught:
        load_rules("rules: [{name: " + "r" * 100_000 + "}]")
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{name: r, by: '', seq: [{as: a, stream: A}]}]", "rule 'r': by: is empty; name a field, or write"),
        ("windows: [{name: w, by: null, from: A, every: 1s, select: {n: count()}}]",
         "window 'w': by: a window needs a field to group by, got null"),
        ("windows: [{name: w, by: ' ', from: A, every: 1s, select: {n: count()}}]", "window 'w': by: is empty"),
        ("windows: [{name: w, from: A, every: 1s, select: {n: cont()}}]", "window 'w': select.n: unknown function"),
        ("validators: [{stream: A, where: 'x >'}]", "validator 'validators[0]': where: not an expression"),
        ("validators: [{stream: A, sample: 3}]", "validator 'validators[0]': sample: expected a value less than"),
        ("streams: [{name: S, kye: a}]", "stream 'S': kye: unknown field 'kye'; did you mean 'key'?"),
        ("rules: [{name: r, seq: [{as: a, stream: on}]}]", "got true; YAML reads yes, no, on"),
        ("rules: [{name: r, version: 1.10, seq: [{as: a, stream: A}]}]", "version: expected text, got 1.1; put it in"),
        ("rules: [{name: r, seq: [{as: a, stream: ''}]}]", "the name of a stream is empty"),
        ("rules: [{name: r, seq: [{as: a, stream: A, min: x}]}]", "min: expected a whole number, got 'x'"),
        ("rules: [{name: r, seq: [{as: a, stream: A, contiguity: nxt}]}]", "expected 'next', 'followed_by' or"),
    ],
)  # fmt: skip
def test_a_problem_says_what_came_and_what_kind_of_entry_has_it(text, message):
    ((_, found),) = problems(text)
    assert message in found
    assert "Input should" not in found


def test_a_window_in_python_is_called_a_window():
    with pytest.raises(InvalidRules, match=r"^window 'w': by: a window needs"):
        Window(name="w", source="A", by=None, every="1s", select={"n": "count()"})


@pytest.mark.parametrize(
    ("encoding", "found"), [("latin-1", "byte 0xf6 at position 19"), ("utf-16", "byte 0xff at position 0")]
)
def test_a_file_in_another_encoding_says_to_save_it_as_utf_8(tmp_path, encoding, found):
    path = tmp_path / "rules.yaml"
    path.write_bytes("streams: [{name: gr\u00f6\u00dfe}]\nrules: []\n".encode(encoding))
    ((_, message),) = problems(path)
    assert message == f"{path}: is no text in UTF-8 ({found}); save it as UTF-8"


def test_a_name_that_is_given_twice_is_reported_with_both_lines():
    text = """rules:
  - {name: r, by: null, seq: [{as: a, stream: x}]}
windows:
  - {name: w, from: x, every: 1s, select: {n: "count()"}}
  - {name: r, from: x, every: 1s, select: {n: "count()"}}
"""
    ((line, message),) = problems(text)
    assert line == 5
    assert "two rules, windows, statistics or junctions, in line 2 and in line 5; rename one of them" in message


def test_a_name_of_a_field_that_yaml_reads_as_a_boolean_is_explained_in_words():
    ((_, message),) = problems("streams: [{name: ev, fields: {on: bool}}]\nrules: []\n")
    assert "stream 'ev': fields: the name of an entry: expected text, got true; YAML reads yes, no, on, " in message
    assert "[key]" not in message
