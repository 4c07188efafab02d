"""YAML text to plain values, with the line of each value. What YAML would silently drop or join is refused here.

PyYAML keeps the last of two equal keys, expands aliases without a limit, and joins the lines of folded text, so that a
comment inside it would hide the rest. Depth and size, aliases written out, are limited while the text is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import yaml

from astrocyte.agents.expressions.lexer import comment_at
from astrocyte.agents.rules.problems import InvalidRules, Location, RuleProblem
from astrocyte.agents.rules.reading.scalars import place_in

__all__ = ["MOST_CHARACTERS", "Document", "read_document"]

MOST_CHARACTERS: Final = 1_000_000
MOST_VALUES: Final = 200_000
"""Values of one file; what an alias repeats counts again."""
MAX_DEPTH: Final = 64
_INTEGER: Final = "tag:yaml.org,2002:int"
_OCTAL: Final = re.compile(r"[+-]?0_*[0-7][0-7_]*", re.ASCII)
_EXPRESSIONS: Final = frozenset({"where", "until", "confidence"})
_OF_EXPRESSIONS: Final = frozenset({"emit", "select", "set"})


class Document(NamedTuple):
    """Values of a file, and where each is written, by its path."""

    data: Any
    nodes: Mapping[Location, yaml.Node]

    def place(self, path: Location, position: int | None = None) -> tuple[int, int] | None:
        """Line and column, from 1, of a value or of a character of its text; None for a path that is not there."""
        node = self.nodes.get(path)
        if node is None:
            return None
        if position is not None and isinstance(node, yaml.ScalarNode):
            return place_in(node, position)
        return node.start_mark.line + 1, node.start_mark.column + 1


class _BeyondLimit(yaml.MarkedYAMLError):
    """What is written may be YAML, but is more than rule files may hold."""


class _Loader(yaml.SafeLoader):
    """Reads each pair of surrogates, as JSON writes a character beyond 16 bits, as that character.

    Raises _BeyondLimit where a limit is exceeded, and for an alias inside the value that it names.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0
        """Values until now, those of aliases written out."""
        self._extent: dict[int, tuple[int, int]] = {}
        """Values in a finished node, and levels below it."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs have no types for it
        mark, before, is_alias = event.start_mark, self._values, isinstance(event, yaml.AliasEvent)
        self._depth += 1
        self._check(mark)
        node: Any = super().compose_node(parent, index)
        if is_alias:
            if id(node) not in self._extent:
                raise _BeyondLimit(problem="an alias is inside the value that it names", problem_mark=mark)
            values, below = self._extent[id(node)]
            self._values += values
            self._check(mark, below)
        else:
            self._values += 1
            self._check(mark)
            parts = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
            inner = parts if isinstance(node, yaml.CollectionNode) else ()
            below = max((self._extent[id(each)][1] + 1 for each in inner), default=0)
            self._extent[id(node)] = (self._values - before, below)
        self._depth -= 1
        return node

    def _check(self, mark: Any, below: int = 0) -> None:
        if self._depth + below > MAX_DEPTH:
            problem = f"nested too deeply; at most {MAX_DEPTH} levels are allowed"
        elif self._values > MOST_VALUES:
            problem = f"expected at most {MOST_VALUES:,} values, aliases written out, got more"
        else:
            return
        raise _BeyondLimit(problem=problem, problem_mark=mark)

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if not node.value.isascii():
            try:
                node.value = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                raise yaml.MarkedYAMLError(
                    problem="half a character (a lone surrogate) is no text", problem_mark=node.start_mark
                ) from None
        return node


def read_document(text: str, file: str | None = None) -> Document:
    """The values of a YAML text. Raises InvalidRules with all problems found; ``file`` is only named in them."""
    problems: list[RuleProblem] = []

    def report(message: str, mark: Any) -> None:
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
        problems.append(RuleProblem(message=message, file=file, line=line, column=column))

    data, nodes = None, {}
    if len(text) > MOST_CHARACTERS:
        message = f"expected at most {MOST_CHARACTERS:,} characters, got more; divide the rules among files"
        raise InvalidRules([RuleProblem(message=message, file=file)])
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            for message, mark in _faults(node, set(), ""):
                report(message, mark)
            if not problems:
                data = loader.construct_document(node)
                nodes = dict(_nodes(node, ()))
    except _BeyondLimit as error:
        report(str(error.problem), error.problem_mark)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or str(error)
        report(f"not YAML: {' '.join(reason.split())}", getattr(error, "problem_mark", None))
    except ValueError as error:  # a date or number that Python cannot represent
        report(f"a value cannot be read: {error}; put it in quotation marks if it is text", None)
    if problems:
        raise InvalidRules(problems)
    return Document(data, nodes)


def _faults(node: yaml.Node, seen: set[int], parent: str) -> Iterator[tuple[str, Any]]:
    """Repeated keys, integers of another base than they look, and comments that folding would extend.

    Each node is looked at once, however often an alias repeats it.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield from _other_base(node)
    elif isinstance(node, yaml.MappingNode):
        first: dict[tuple[str, str], Any] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                name = (key.tag, key.value)
                if name in first:
                    lines = f"in line {first[name].line + 1} and in line {key.start_mark.line + 1}"
                    yield f"{key.value!r} is given twice, {lines}; keep one of them", key.start_mark
                first.setdefault(name, key.start_mark)
                if key.value in _EXPRESSIONS or parent in _OF_EXPRESSIONS:
                    yield from _folded_comment(value)
            yield from _faults(value, seen, str(key.value))
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _faults(each, seen, "")


def _other_base(node: yaml.ScalarNode) -> Iterator[tuple[str, Any]]:
    """An integer that YAML reads in octal for its leading zero, or in base 60 for its colons."""
    if node.tag != _INTEGER or not (":" in node.value or _OCTAL.fullmatch(node.value)):
        return
    number = yaml.SafeLoader("").construct_yaml_int(node)
    how = "in base 60" if ":" in node.value else "as an octal number"
    advice = f"write {number}" if ":" in node.value else f"write it without the zero, or {number} for that number"
    yield (
        f"YAML reads {node.value} {how}, as {number}; {advice}, or put it in quotation marks for text",
        node.start_mark,
    )


def _folded_comment(node: yaml.Node) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, yaml.ScalarNode) or node.style not in (">", '"', "'"):
        return
    at = comment_at(node.value)
    if at is None:
        return
    written = str(node.start_mark.buffer)[node.start_mark.pointer : node.end_mark.pointer]
    lines = [line.strip() for line in written.splitlines()[1 if node.style == ">" else 0 :] if line.strip()]
    if any("#" in line for line in lines[:-1]):
        message = "YAML joins the lines of this text, so that its comment would hide the lines after it"
        yield f"{message}; write | (where: |) to keep the lines apart", node.start_mark


def _nodes(node: yaml.Node, path: Location) -> Iterator[tuple[Location, yaml.Node]]:
    """Every value, by its path."""
    stack: list[tuple[yaml.Node, Location]] = [(node, path)]
    while stack:
        node, path = stack.pop()
        yield path, node
        if isinstance(node, yaml.MappingNode):
            stack += [(value, (*path, str(key.value))) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            stack += [(value, (*path, index)) for index, value in enumerate(node.value)]
