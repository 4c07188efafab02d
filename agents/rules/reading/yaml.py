"""Reader of rule files: YAML with positions, so that errors name file, line, rule and field."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from astrocyte.agents.expressions.kind_checks import kind_problems, types_of
from astrocyte.agents.expressions.nodes import Aggregate, Field, Node, walk
from astrocyte.agents.rules.graph.links import fields_of, readable_by, types_of_match
from astrocyte.agents.rules.insight import STATISTIC_SPECS, StatisticSpec
from astrocyte.agents.rules.junctions import Junction
from astrocyte.agents.rules.model import Rule, RuleSet, Stream
from astrocyte.agents.rules.named_fields import expressions_of, reads_of
from astrocyte.agents.rules.problems import InvalidRules, Location, RuleProblem, problems_of, shown, unknown
from astrocyte.agents.rules.reading.documents import MOST_CHARACTERS, Document, read_document
from astrocyte.agents.rules.reading.written import named_path, value_path, written_path
from astrocyte.agents.rules.select import RESULT_FIELDS
from astrocyte.agents.rules.validators import Validator
from astrocyte.agents.rules.windows import Window
from astrocyte.schemas.catalog import CATALOG, NUMBERS, WHOLE, FieldType
from astrocyte.schemas.registry import did_you_mean

__all__ = ["KINDS", "read_rules"]

_ENTRANCE: Final = ("validators", "saccules")
"""The key of the list of validators, and its older name."""
_MAKERS: Final = {"rules": "rule", "windows": "window", "insight": "statistic", "junctions": "junction"}
KINDS: Final = _MAKERS | {"streams": "stream"} | dict.fromkeys(_ENTRANCE, "validator")
"""What an entry of each list is called in messages."""
_IMPLICIT: Final = frozenset({"timestamp", "key", "type", "seq", "event_id", "simulation_id"})


_T = TypeVar("_T")
Check = Callable[[RuleSet], Iterable[RuleProblem]]
"""Problems of a rule set whose parts are valid; ``kind``, ``rule`` and ``field`` name their places."""


def read_rules(source: Any, *, known_streams: Collection[str] | None, check: Check) -> RuleSet:
    """The rules of a file, YAML text or a parsed mapping, as `astrocyte.agents.loading.load_rules` describes.

    ``check`` finds what makes the rule set as a whole impossible. Raises InvalidRules with all problems found.
    """
    file: str | None = None
    if isinstance(source, Path) or (isinstance(source, str) and source.endswith((".yaml", ".yml"))):
        file = str(source)
        try:
            with Path(source).open(encoding="utf-8") as text:
                source = text.read(MOST_CHARACTERS + 1)  # no more of it is needed to refuse it
        except OSError as error:
            raise InvalidRules([RuleProblem(message=f"cannot be read: {error}", file=file)]) from None
        except UnicodeDecodeError as error:
            found = f"byte 0x{error.object[error.start]:02x} at position {error.start:,}"
            message = f"is no text in UTF-8 ({found}); save it as UTF-8"
            raise InvalidRules([RuleProblem(message=message, file=file)]) from None
    document = read_document(source, file) if isinstance(source, str) else Document(source, {})
    return _Reader(file, document, known_streams).read(document.data, check)


class _Reader:
    def __init__(self, file: str | None, document: Document, known: Collection[str] | None) -> None:
        self.file = file
        self.document = document
        self.known = known
        self.problems: list[RuleProblem] = []

    def report(
        self, message: str, path: Location, *, rule: str | None = None, field: str = "", at: int | None = None
    ) -> None:
        """Add a problem at a path of the model, or at a character of the text there."""
        line, column = self.document.place(*self.written(path, at)) or (None, None)
        kind = KINDS.get(str(path[0]), "rule") if path else "rule"
        self.problems.append(
            RuleProblem(message=message, rule=rule, field=field, file=self.file, line=line, column=column, kind=kind)
        )

    def written(self, path: Location, at: int | None) -> tuple[Location, int | None]:
        """The nearest path that is in the file, and the position, if it is that of the path itself."""
        wanted = path
        if len(path) > 2 and isinstance(self.document.data, Mapping):
            item = self.document.data[path[0]][path[1]]
            wanted = (*path[:2], *written_path(item, path[2:])) if isinstance(item, Mapping) else path
        found: Location = ()
        for part in wanted:
            ways = (*found, part), (*found, "not", part)
            inside = next((each for each in ways if each in self.document.nodes), None)
            if inside is None:
                return found, None
            found = inside
        return found, at

    def read(self, data: Any, check: Check) -> RuleSet:
        if not isinstance(data, Mapping):
            found = "nothing" if data is None else type(data).__name__
            self.report(f"expected a mapping with rules: and windows:, got {found}", ())
            raise InvalidRules(self.problems)
        for key in data:
            if key not in RuleSet.model_fields and key not in _ENTRANCE:
                self.report(unknown(str(key), list(RuleSet.model_fields)), (key,), field=str(key))
        parts: dict[str, list[Any]] = {}
        models: dict[str, Any] = {"rules": Rule, "windows": Window, "insight": None, "junctions": Junction}
        models |= {"streams": Stream}
        for section, model in (models | dict.fromkeys(_ENTRANCE, Validator)).items():
            parts[section] = list(self.section(section, model, [] if data.get(section) is None else data[section]))
        entrance = {name: parts.pop(name) for name in _ENTRANCE}
        parts["validators"] = [validator for found in entrance.values() for validator in found]
        self.check_declared_once(data.get("streams"))
        self.check_named_once(data)
        if not self.problems:
            self.check_streams(parts, entrance)
            self.check_bounds(parts["rules"])
            self.check_kinds(parts, entrance)
        if not self.problems:
            try:
                ruleset = RuleSet.model_validate(parts)
            except ValidationError as error:
                for problem in problems_of(error, RuleSet):
                    self.report(problem.message, ())
            else:
                for problem in check(ruleset):
                    self.report_of(data, problem)
                if not self.problems:
                    return ruleset
        raise InvalidRules(self.problems)

    def report_of(self, data: Mapping[str, Any], problem: RuleProblem) -> None:
        """Report a problem that names its rule and field, with their place in the file."""
        section = next(name for name, kind in KINDS.items() if kind == problem.kind)
        names = [item.get("name", item.get("statistic")) for item in data[section]]
        index, item = next(each for each in enumerate(data[section]) if names[each[0]] == problem.rule)
        path = named_path(item, problem.field)
        self.report(problem.message, (section, index, *path), rule=problem.rule, field=problem.field)

    def section(self, section: str, model: Any, items: Any) -> Iterator[Any]:
        if not isinstance(items, list):
            self.report(f"{section}: expected a list, got {type(items).__name__}", (section,), field=section)
            return
        for index, item in enumerate(items):
            named = item.get("name", item.get("statistic")) if isinstance(item, Mapping) else None
            name = f"{section}[{index}]" if named is None else str(named)
            if not isinstance(item, Mapping):
                self.report(f"expected a mapping, got {shown(item)}", (section, index), rule=name)
                continue
            if "non_finite" in item and item["non_finite"] is None:
                item = {**item, "non_finite": "null"}  # YAML reads null without quotes as None
            wanted = STATISTIC_SPECS.get(str(item.get("statistic"))) if section == "insight" else model
            if wanted is None:
                self.report(_no_statistic(item), (section, index, "statistic"), rule=name, field="statistic")
                continue
            try:
                yield wanted.model_validate(item)
            except ValidationError as error:
                for problem in problems_of(error, wanted):
                    self.report(
                        problem.message, (section, index, *problem.path),
                        rule=name, field=problem.field, at=problem.position,
                    )  # fmt: skip

    def check_declared_once(self, streams: Any) -> None:
        first: dict[str, int] = {}
        for index, item in enumerate(streams if isinstance(streams, list) else ()):
            name = item.get("name") if isinstance(item, Mapping) else None
            if not isinstance(name, str):
                continue
            if name in first:
                where = self.both_places(("streams", first[name]), ("streams", index))
                message = f"stream {name!r} is declared twice, {where}; keep one declaration"
                self.report(message, ("streams", index), rule=name, field="name")
            first.setdefault(name, index)

    def check_named_once(self, data: Mapping[str, Any]) -> None:
        """Report a name that two rules, windows, statistics or junctions have, with the places of both."""
        first: dict[str, tuple[str, int]] = {}
        for section in _MAKERS:
            items = data.get(section)
            for index, item in enumerate(items if isinstance(items, list) else ()):
                name = item.get("name") if isinstance(item, Mapping) else None
                if not isinstance(name, str):
                    continue
                if name in first:
                    where = self.both_places(first[name], (section, index))
                    message = (
                        f"the name {name!r} is given to two rules, windows, statistics or junctions, {where}; "
                        "rename one of them"
                    )
                    self.report(message, (section, index, "name"), rule=name, field="name")
                first.setdefault(name, (section, index))

    def both_places(self, *entries: tuple[str, int]) -> str:
        """Where two entries of lists are written."""
        places = [(self.document.place(entry), entry) for entry in entries]
        return " and ".join(
            f"in line {place[0]}" if place else f"as {section}[{index}]" for place, (section, index) in places
        )

    def check_streams(self, parts: Mapping[str, list[Any]], entrance: Mapping[str, list[Validator]]) -> None:
        fields: dict[str, set[str] | None] = {
            window.name: {*window.select, *RESULT_FIELDS, window.by} for window in parts["windows"]
        }
        fields |= {spec.name: {*spec.fields} for spec in parts["insight"]}
        fields |= {each.name: fields_of(each, parts["rules"]) or None for each in parts["junctions"]}
        fields |= {stream.name: _declared(stream) for stream in parts["streams"] if stream.fields}
        for section, index, stream in _entered(entrance):
            validator, entering = entrance[section][index], self.fields_of(stream, fields)
            if entering is not None:
                self.check_validator(validator, (section, index), stream, entering)
            if validator.use is not None:
                fields[stream] = None  # a function may set any field
            elif entering is not None:
                fields[stream] = entering | validator.set.keys() | set(validator.rename.values())
        for index, rule in enumerate(parts["rules"]):
            for number, step in enumerate(rule.steps):
                for stream in step.stream:
                    self.check_stream(
                        stream, parts, ("rules", index, "steps", number, "stream"),
                        rule=rule.name, field=f"{step.name}.stream", reads=True,
                    )  # fmt: skip
            self.check_rule(rule, index, fields)
        for index, window in enumerate(parts["windows"]):
            self.check_stream(
                window.source, parts, ("windows", index, "from"), rule=window.name, field="from", reads=True
            )
            self.check_window(window, index, self.fields_of(window.source, fields))
        for index, junction in enumerate(parts["junctions"]):
            for stream in () if junction.forms is None else junction.forms.streams:
                self.check_stream(
                    stream, parts, ("junctions", index, "forms", "with"), rule=junction.name, field="forms.with"
                )
        for index, spec in enumerate(parts["insight"]):
            self.check_statistic(spec, index, parts, fields)
        for section, index, stream in _entered(entrance):
            maker = next((each for each in _MAKERS if any(made.name == stream for made in parts[each])), None)
            if maker is not None:
                message = (
                    f"{stream!r} is a {_MAKERS[maker]} of this file; validators see events that are sent to it: use "
                    "where in what reads it"
                )
                path = self.path_of_value(stream, section, index, "stream")
                self.report(message, path, rule=f"{section}[{index}]", field="stream")
                continue
            self.check_stream(stream, parts, (section, index, "stream"), rule=f"{section}[{index}]", field="stream")

    def check_stream(
        self, stream: str, parts: Mapping[str, list[Any]], path: Location, *, rule: str, field: str, reads: bool = False
    ) -> None:
        """Report a stream that does not exist. ``reads``: what the file makes may be read there as well."""
        declared = {each.name for each in parts["streams"]}
        made = {each.name for section in _MAKERS for each in parts[section]}
        if self.known is None or stream in made | declared or stream in self.known:
            return
        readable = readable_by(rule, RuleSet.model_construct(None, **parts)) if reads else set[str]()
        hint = did_you_mean(stream, [*sorted(readable | declared), *self.known])
        message = f"unknown stream {stream!r}{hint or '; declare it under streams: if it is your own'}"
        self.report(message, self.path_of_value(stream, *path), rule=rule, field=field)

    def check_rule(self, rule: Rule, index: int, fields: Mapping[str, set[str] | None]) -> None:
        """Report fields that the rule reads and that no stream of their step has, where these list their fields."""
        for field, part, found in reads_of(rule):
            for (names, name), at in _first((each[:2], each.at) for each in found).items():
                listed = [self.fields_of(stream, fields) for stream in names]
                if any(each is None for each in listed):
                    continue
                types = [event_type for stream in names if (event_type := CATALOG.find(stream)) is not None]
                known = set().union(*(each for each in listed if each is not None)) | _IMPLICIT
                known |= {event_type.key for event_type in types} | (
                    {rule.by} if part != ("by",) and rule.by else set()
                )
                if name not in known:
                    hint = did_you_mean(name, known) or f"; its fields: {', '.join(sorted(known - _IMPLICIT))}"
                    self.report(
                        f"stream {'/'.join(names)} has no field {name!r}{hint}",
                        ("rules", index, *part), rule=rule.name, field=field, at=at,
                    )  # fmt: skip

    def check_validator(self, validator: Validator, path: Location, stream: str, listed: set[str]) -> None:
        """Report fields that the validator reads and its stream does not have, so that it would refuse every event."""
        event_type = CATALOG.find(stream)
        known = listed | _IMPLICIT | ({event_type.key} if event_type is not None else set())
        reads: dict[Location, list[tuple[str, int]]] = {("where",): _fields_read(validator.where_node)}
        reads |= {("require", number): [(name, 0)] for number, name in enumerate(validator.require)}
        if validator.use is None:  # the function comes before set, and may set any field
            reads |= {("set", name): _fields_read(node) for name, node in validator.set_nodes.items()}
        for part, names in reads.items():
            for name, at in _first(names).items():
                seen = known | (validator.set.keys() if part[0] == "set" else set())
                if name not in seen:
                    hint = did_you_mean(name, seen - {part[-1]}) or f"; its fields: {', '.join(sorted(listed))}"
                    field = ".".join(map(str, part))
                    message = f"stream {stream} has no field {name!r}{hint}"
                    self.report(message, (*path, *part), rule=f"{path[0]}[{path[1]}]", field=field, at=at)

    def check_window(self, window: Window, index: int, listed: set[str] | None) -> None:
        """Report fields that the window reads and its source does not have."""
        if listed is None:
            return
        known = listed | _IMPLICIT
        event_type = CATALOG.find(window.source)
        by_key = event_type is not None and event_type.key == window.by
        reads: dict[str, list[tuple[str, int]]] = {"by": [] if by_key else [(window.by, 0)]}
        reads["where"] = _fields_read(window.where_node)
        for field, node in window.parsed.written.items():
            reads[f"select.{field}"] = [read for call in _calls(node) for read in _fields_read(call)]
        for field, names in reads.items():
            for name, at in _first(names).items():
                if name not in known:
                    hint = did_you_mean(name, known) or f"; its fields: {', '.join(sorted(listed))}"
                    self.report(
                        f"stream {window.source} has no field {name!r}{hint}",
                        ("windows", index, *field.split(".", 1)), rule=window.name, field=field, at=at,
                    )  # fmt: skip

    def check_statistic(
        self,
        spec: StatisticSpec,
        index: int,
        parts: Mapping[str, list[Any]],
        fields: Mapping[str, set[str] | None],
    ) -> None:
        """Report streams that do not exist, and fields that a statistic reads and their stream does not have."""
        for stream in spec.streams:
            key = spec.key_of(stream)
            self.check_stream(stream, parts, ("insight", index, key), rule=spec.name, field=key, reads=True)
        for stream, name, whole in spec.reads():
            listed = self.fields_of(stream, fields)
            event_type = CATALOG.find(stream) if stream not in fields else None
            key = spec.key_of(name)
            kind = None if event_type is None else event_type.fields.get(name)
            kinds: tuple[FieldType, ...] = WHOLE if whole else (*NUMBERS, "bool")
            if listed is not None and name not in listed | _IMPLICIT:
                types = {} if event_type is None else event_type.fields
                fit = [each for each in sorted(listed) if types.get(each, kinds[0]) in kinds]
                hint = did_you_mean(name, fit) or f"; its fields: {', '.join(sorted(listed))}"
                message = f"stream {stream} has no field {name!r}{hint}"
            elif kind is not None and kind not in kinds:
                wanted = "an id, which is a whole number" if whole else "a number"
                message = f"field {name!r} of stream {stream} is {kind}; a statistic reads it as {wanted}"
            else:
                continue
            self.report(message, self.path_of_value(name, "insight", index, key), rule=spec.name, field=key)

    def path_of_value(self, value: str, *path: str | int) -> Location:
        """Path of a name inside the list or mapping at a path of the file, else that path."""
        found, _ = self.written(path, None)
        item: Any = self.document.data
        for part in found:
            item = item[part]
        return (*found, *(value_path(item, value) or ()))

    @staticmethod
    def fields_of(stream: str, made: Mapping[str, set[str] | None]) -> set[str] | None:
        if stream in made:
            return made[stream]
        event_type = CATALOG.find(stream)
        return set(event_type.fields) if event_type is not None and event_type.fields else None

    def check_kinds(self, parts: Mapping[str, list[Any]], entrance: Mapping[str, list[Validator]]) -> None:
        """Report expressions that take text for a number, or a number for text, by the types of their streams."""
        types: dict[str, Mapping[str, FieldType]] = {stream.name: stream.types for stream in parts["streams"]}
        types |= {each.name: types_of_match(each, parts["rules"]) for each in parts["junctions"]}
        for section, index, stream in _entered(entrance):
            validator = entrance[section][index]
            for name, node in {"where": validator.where_node, **validator.set_nodes}.items():
                field = name if name == "where" else f"set.{name}"
                for message, at in kind_problems(node, lambda _: (stream,), types):  # noqa: B023  it is called at once
                    path: Location = (section, index, *field.split(".", 1))
                    self.report(message, path, rule=f"{section}[{index}]", field=field, at=at)
            types[stream] = _after(validator, types_of(stream, types))
        for index, junction in enumerate(parts["junctions"]):
            for message, at in kind_problems(junction.where_node, lambda _: (junction.name,), types):  # noqa: B023
                self.report(message, ("junctions", index, "where"), rule=junction.name, field="where", at=at)
        for index, rule in enumerate(parts["rules"]):
            steps: dict[str | None, tuple[str, ...]] = {step.name: step.stream for step in rule.steps}
            for each in expressions_of(rule):
                for message, at in kind_problems(each.node, {None: each.own, **steps}.__getitem__, types):
                    self.report(message, ("rules", index, *each.path), rule=rule.name, field=each.name, at=at)
        for index, window in enumerate(parts["windows"]):
            nodes: list[tuple[str, Node | None]] = [("where", window.where_node)]
            nodes += [(f"select.{name}", call) for name, node in window.parsed.written.items() for call in _calls(node)]
            for field, node in nodes:
                for message, at in kind_problems(node, lambda _: (window.source,), types):  # noqa: B023
                    place: Location = ("windows", index, *field.split(".", 1))
                    self.report(message, place, rule=window.name, field=field, at=at)

    def check_bounds(self, rules: list[Rule]) -> None:
        for index, rule in enumerate(rules):
            if not rule.bounded:
                self.report(
                    "the partial matches of this rule are unbounded; add within: 10s (or max_partials: 1000, which "
                    "keeps the newest)", ("rules", index), rule=rule.name, field="within",
                )  # fmt: skip


def _no_statistic(item: Mapping[str, Any]) -> str:
    name, known = item.get("statistic"), ", ".join(STATISTIC_SPECS)
    if name is None:
        return f"is missing; name one of {known}"
    return f"there is no statistic {shown(name)}; expected one of {known}{did_you_mean(str(name), STATISTIC_SPECS)}"


def _declared(stream: Stream) -> set[str]:
    """Names of the members that a declaration states."""
    named = {*stream.fields, stream.key.field}
    return named | ({stream.time.field} if stream.time is not None else set()) | ({stream.id} if stream.id else set())


def _entered(entrance: Mapping[str, list[Validator]]) -> Iterator[tuple[str, int, str]]:
    """Section, index and stream, for each stream of each validator."""
    for section, validators in entrance.items():
        for index, validator in enumerate(validators):
            yield from ((section, index, stream) for stream in validator.stream)


def _after(validator: Validator, types: Mapping[str, FieldType]) -> dict[str, FieldType]:
    """Types of a stream's fields after a validator, as far as they are known."""
    if validator.use is not None:
        return {}  # a function may set any field
    kept = {name: kind for name, kind in types.items() if name not in validator.set}
    return {validator.rename.get(name, name): kind for name, kind in kept.items()}


def _fields_read(node: Node | None) -> list[tuple[str, int]]:
    """Name and position of each field of an expression."""
    return [] if node is None else [(part.name, part.at) for part in walk(node) if isinstance(part, Field)]


def _calls(node: Node) -> list[Aggregate]:
    """The aggregates of an expression."""
    return [part for part in walk(node) if isinstance(part, Aggregate)]


def _first(places: Iterable[tuple[_T, int]]) -> dict[_T, int]:
    """Each name once, with its first position."""
    found: dict[_T, int] = {}
    for name, at in places:
        found.setdefault(name, at)
    return found
