"""What people and programs write to say what is to be done: rules, declarations, expressions, control messages."""

from __future__ import annotations

from collections.abc import Iterator

from astrocyte.agents.expressions.parser import parse, parse_template
from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.loading import load_rules
from astrocyte.agents.rules.model import RuleSet
from astrocyte.pipeline.topology.rule_files import shipped_rules
from astrocyte.pipeline.topology.rule_updates import LiveRules
from astrocyte.schemas.contract import Contracts
from astrocyte.schemas.errors import AstrocyteError, InvalidEvent
from astrocyte.schemas.json.text import read_value
from tests.fuzz.target import Check, Target, joined, parts
from tests.support import mutants

__all__ = ["TARGETS"]

EXPRESSIONS = [
    "x > 3 and not (s == 'text3' or n in [1, 2, 3])",
    "a.x + b.x * -2.5 / (c.n - 1) ** 2 % 7 >= 1e-3",
    "mean(a.x) > last(a.x) and count(a) < 10 and s.startswith('te')",
    "0 < x <= 1_000 and flag is not null",
    "rule {a.x:.2f} of {b.s!r}: {{}} {count(a)}",
]
DECLARATIONS = [
    b"streams: [{name: A, topic: some.topic, decoder: csv, fields: {x: float64, s: string}}]",
    b"""streams:
  - name: A
    key: {field: id, path: meta.id, partitioned: false}
    time: {field: meta.at, unit: ms}
    on_type_error: null
    fields: {x: {type: float64, path: deep.x}, s: string}
    decoder: {name: csv, columns: [timestamp, key, x], delimiter: ";"}
  - &b {name: B, key: k, decoder: cloudevents}
  - {<<: *b, name: C}
""",
]
CONTROLS = [
    b'{"values": {"rate": 2.5, "noise": 0.1}, "run": "run-1"}',
    b'{"difficulty": 0.7}',
    b'{"run": null, "values": {"energy_cost": 1e308, "pause": true}}',
    b"[1, 2]",
]


def _open_rules() -> Check:
    """A rule file, and the same as a message of the topic ``rules``, which changes nothing where it is refused."""
    live = LiveRules(RuleSet())

    def check(data: bytes) -> None:
        change = live.apply("k", data)
        assert change.refused is None or change.ruleset == RuleSet()
        live.apply("k", None)
        if change.refused is not None:
            load_rules(data.decode("utf-8", "surrogateescape"))  # as from a file in another encoding

    return check


def _open_declarations() -> Check:
    def check(data: bytes) -> None:
        ruleset = load_rules(data.decode("utf-8", "replace"))
        Decoders(Contracts(ruleset.streams))

    return check


def _open_expressions() -> Check:
    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        for read in (parse, parse_template):
            try:
                read(text, steps={"a", "b", "c"}) if read is parse else read(text)
            except AstrocyteError:
                continue

    return check


def _open_controls() -> Check:
    """A message of ``control.<name>``, as a running world takes it."""
    from astrocyte.simulator.runtime.controls import Plan
    from astrocyte.simulator.scenarios.cells.config import CellsConfig
    from astrocyte.simulator.scenarios.cells.scenario import CELLS
    from astrocyte.simulator.scenarios.dna.config import DnaConfig
    from astrocyte.simulator.scenarios.dna.scenario import DNA

    made = [(CELLS, CellsConfig(size=1024)), (DNA, DnaConfig())]

    def check(data: bytes) -> None:
        name, value = (*parts(data, 2), b"")[:2]
        try:
            body = read_value(value)
        except InvalidEvent:
            return
        for scenario, config in made:
            plan = Plan(scenario, config, source=lambda: [(name.decode(errors="replace"), body)])
            plan.params(0)
            assert len(plan.controls) == 1
            plan.controls[0].row()

    return check


def _control_seeds() -> Iterator[bytes]:
    for name in (b"parameters", b"difficulty", b"cells"):
        yield from (joined(name, value) for value in CONTROLS)


TARGETS = [
    Target(
        "rules",
        _open_rules,
        lambda: [path.read_bytes() for path in shipped_rules().values()] + [mutants.RULES.encode()],
        (AstrocyteError,),
        most_s=10.0,
    ),
    Target("declarations", _open_declarations, lambda: DECLARATIONS, (AstrocyteError,)),
    Target("expressions", _open_expressions, lambda: [text.encode() for text in EXPRESSIONS]),
    Target("controls", _open_controls, _control_seeds),
]
