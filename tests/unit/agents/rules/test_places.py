"""What is wrong in an expression is marked at its line and column, in every style of YAML."""

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.problems import InvalidRules
from astrocyte.agents.rules.reading.scalars import place_in
from astrocyte.pipeline.topology.rule_files import shipped_rules

EXPRESSIONS = {"where", "until", "confidence", "message", "by"}
OF_EXPRESSIONS = {"emit", "select", "set"}
NAMES = {"traits", "effects", "changes", "series", "require"}
"""Lists of fields, or a single one."""
WORD = re.compile(r"(?<![\w'\"`{])(?!(?:and|or|not|in|is|None|true|false|null|key|eager|final)\b)[A-Za-z_]\w*")


def expressions(node: yaml.Node, key: str = "", parent: str = ""):
    """The scalars of a file that hold expressions or names of fields, each with its key."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield from expressions(value, str(name.value), key)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from expressions(each, key, parent)
    elif key in EXPRESSIONS | NAMES or parent in OF_EXPRESSIONS:
        yield key, node


def words(text: str):
    """Offset of each word of each expression of a file: a field, a step or a function."""
    for key, node in expressions(yaml.compose(text)):
        begin, end = node.start_mark.index, node.end_mark.index
        written = text[begin:end]
        spans = [(0, len(written))]
        if key == "message":  # what braces hold, without the format
            spans = [found.span(1) for found in re.finditer(r"{([^:}]*)", written)]
        hidden = r"#.*" if node.style == "'" else r"'[^']*'|#.*"  # text and comments
        plain = re.sub(hidden, lambda found: " " * len(found[0]), written)
        for start, stop in spans:
            yield from (begin + found.start() for found in WORD.finditer(plain, start, stop))


def place(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def marked(text: str) -> list[tuple[int | None, int | None]]:
    with pytest.raises(InvalidRules) as refused:
        load_rules(text)
    return [(each.line, each.column) for each in refused.value.problems]


@pytest.mark.parametrize("file", sorted(shipped_rules()))
def test_a_misspelling_in_any_expression_of_the_shipped_rules_is_marked_where_it_is(file):
    text = shipped_rules()[file].read_text()
    found = list(words(text))
    assert len(found) > 40
    for offset in found[:: len(found) // 20]:
        misspelt = f"{text[:offset]}zz{text[offset:]}"
        assert place(text, offset) in marked(misspelt), misspelt.split("\n")[place(text, offset)[0] - 1]


WHOLE = """
streams:
  - {name: door, key: room, fields: {room: string, opened: int64, by_whom: string}}
  - {name: heat, key: room, fields: {room: string, value: float64}}
validators:
  - stream: door
    require: [room, @opened@]
    where: "@opened@ >= 0"
    set: {twice: '2 * @opened@'}
windows:
  - {name: rate, from: heat, by: @room@, every: 10s, where: "@value@ > 0", select: {a: count(), b: "1 + max(@value@)"}}
insight:
  - {statistic: trends, size: 60s, interval: 1s, series: [{stream: heat, field: @value@}, {field: @b@, stream: rate}]}
rules:
  - name: watched
    by: @room@
    within: 1m
    seq:
      - as: first
        stream: [door, heat]
        where: 'room != ''it'' and
          @opened@ > 1'
      - not: {as: calm, stream: heat, where: '@value@ < 1 or "a" == @room@'}
      - not: {stream: heat, where: '@value@ < 1'}
      - seq:
          - as: rising
            stream: heat
            min: 1
            where: >-
              value > 3

                and rising.@value@
              > 2
            until: {where: "@value@ < first.@opened@"}
        min: 1
        until: @value@ > 9
      - as: last
        stream: heat
        where: |
          value > 3  # hot: a comment

          and sum(rising.@value@) > @value@
    emit: {most: max(rising.@value@), "ratio": "last.value / first.@opened@"}
    confidence: 0.5 +
      last.@value@
    alert: {severity: info, message: "{{x}} é \U0001f600 {last.value:.1f} \
      and {last.@value@}"}
    on_timeout: {emit: {a: "first.@opened@"}, alert: {message: 'it''s {first.@opened@}'}}
"""
"""Each name between @ is a field that something reads."""


def test_each_part_of_a_rule_file_has_its_place():
    assert load_rules(WHOLE.replace("@", "")).rules
    names = re.findall("@(\\w+)@", WHOLE)
    assert len(names) > 20
    for number in range(len(names)):
        parts = re.split("@\\w+@", WHOLE)
        words_ = [f"zz{name}" if index == number else name for index, name in enumerate(names)]
        text = "".join(part + word for part, word in zip(parts, [*words_, ""], strict=True))
        offset = sum(map(len, parts[: number + 1])) + sum(map(len, words_[:number]))
        assert place(text, offset) in marked(text), (names[number], place(text, offset), marked(text))


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ("@value@ > 0", "value > 'x'", "value > 'x'"),
        ("1 + max(@value@)", "max(by_whom)", "by_whom"),
        ("last.value / first.@opened@", "last.value / first.room", "room"),
        ("'2 * @opened@'", "'2 * by_whom'", "by_whom'"),
        ("until: @value@ > 9", "until: room > 9", "room > 9"),
        ("> @value@\n", "> > value\n", "> value\n"),
        ('first.@opened@"}\n        min', 'frist.opened"}\n        min', "frist"),
    ],
)
def test_wrong_kinds_and_wrong_syntax_have_their_places_too(old, new, at):
    assert old in WHOLE
    text = WHOLE.replace("from: heat", "from: door") if "by_whom)" in new else WHOLE
    text = text.replace(old, new).replace("@", "")
    assert place(text, text.index(at, text.index(new.replace("@", "")))) in marked(text)


SCALARS = st.text(st.sampled_from("ab \n'\"#:\\é\t\xa0\U0001f600{}"), min_size=1, max_size=60)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(SCALARS, st.sampled_from(["'", '"', "|", ">", None]), st.booleans(), st.integers(0, 6))
def test_each_character_of_a_scalar_is_found_in_what_is_written(value, style, unicode, indent):
    written = "k:\n" + " " * indent + "  n: " + yaml.dump(
        value, default_style=style, width=20, allow_unicode=unicode, indent=indent + 4
    ).replace("\n", "\n" + " " * indent).rstrip(" ")  # fmt: skip
    try:
        node = yaml.compose(written).value[0][1].value[0][1]
    except (yaml.YAMLError, AttributeError):
        return  # not every text is YAML once it is indented
    lines = re.split("\n", written)
    for position, char in enumerate(node.value):
        line, column = place_in(node, position)
        found = lines[line - 1][column - 1 :]
        if not char.isspace():
            assert found.startswith((char, "\\")), (written, position)
    end = place_in(node, len(node.value))
    assert end >= (node.start_mark.line + 1, node.start_mark.column + 1)
