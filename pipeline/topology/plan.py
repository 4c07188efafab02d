"""Topic plan of a rule set: the topics it reads, and the streams that must be repartitioned.

A domain is one partition number over all topics. Rules that share their ``by`` run in one group; where a stream's
own key is not that field, or its topic has another number of partitions than there are domains, the stream first goes
through an internal topic keyed by the field. Rules behind a junction run in a group of their own: event time of such a
group follows that of the groups from which the junction comes, which one group could not do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from astrocyte.agents.ingest.decoders import Decoders
from astrocyte.agents.rules.graph.circles import refuse_circles
from astrocyte.agents.rules.graph.links import Link, depths, junction_sources
from astrocyte.agents.rules.graph.problems import junction_problems
from astrocyte.agents.rules.model import RuleSet
from astrocyte.agents.rules.named_fields import correlated_fields
from astrocyte.agents.rules.problems import InvalidRules
from astrocyte.pipeline.settings import load_settings
from astrocyte.pipeline.topology.generations import layers, with_junctions
from astrocyte.schemas.catalog import CATALOG, Catalog
from astrocyte.schemas.contract import Contracts, shared_topics
from astrocyte.schemas.errors import InvalidRule
from astrocyte.schemas.topics import is_derived, keyed_topic, metrics_topic, mono_topic, why_illegal

__all__ = [
    "ALL_KEYS",
    "KeyGroup",
    "Plan",
    "Repartition",
    "checked_plan",
    "contracts_of",
    "decoders_of",
    "key_groups",
    "make_plan",
    "refuse_topics",
    "uneven_topics",
]

RUN: Final = "simulation_id"
"""Field by which the inputs of statistics are partitioned, so that one domain sees all of a run."""
ALL_KEYS: Final = ""
"""Field name of the group whose rules have ``by: null``: one domain sees every event. No field of a rule is empty."""


@dataclass(frozen=True, slots=True)
class Repartition:
    """One stream that is copied to an internal topic partitioned by another field. The events keep their keys."""

    stream: str
    source: str
    """Topic that is read."""
    field: str
    """`ALL_KEYS` for one domain of all events."""
    topic: str
    """Topic that is written."""
    partitions: int | None = None
    """Partition count of ``source``; None where it is the number of domains."""


@dataclass(frozen=True, slots=True)
class KeyGroup:
    """Rules and windows that share their correlation key, or the statistics, and the topics of what they read.

    They also share their depth: the most junctions through which what they read may have come.
    """

    field: str
    ruleset: RuleSet
    topics: dict[str, str]
    """Topic by stream."""
    exports: frozenset[str] = frozenset()
    """Rules whose matches another group reads as events."""
    role: str = "correlate"
    """Role that runs the group: ``insight`` for the statistics."""
    depth: int = 0
    generation: int | None = None
    """Of rules to which junctions lead back (`pipeline.topology.generations`)."""
    newest: frozenset[str] = frozenset()
    """Of these streams a match must hold an event; of none where there are none."""
    links: tuple[Link, ...] = ()
    """Where the junctions of the group's rules lead."""
    results: frozenset[str] = frozenset()
    """What it makes and other groups read as it is: it tells these how far event time has come."""
    carriers: frozenset[str] = frozenset()
    """Rules of other groups that it reads, whose matches may hold events that came through a junction."""

    @property
    def name(self) -> str:
        """Name of the group in its role: the field, and behind junctions their number."""
        name = f"{self.field}+{self.depth}" if self.depth else self.field
        return name if self.generation is None else f"{name}.{self.generation}"

    @property
    def makers(self) -> frozenset[str]:
        """Names of its rules, windows and statistics."""
        return frozenset(each.name for each in (*self.ruleset.rules, *self.ruleset.windows, *self.ruleset.insight))

    @property
    def title(self) -> str:
        """The group in a sentence, such as ``by key``."""
        if self.role == "insight":
            return "insight by run"
        behind = "" if not self.depth else f" behind {'a junction' if self.depth == 1 else f'{self.depth} junctions'}"
        of = "" if self.generation is None else f", generation {self.generation} of a circle"
        return f"by {self.field or 'null'}{behind}{of}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Groups and the internal topics that feed them."""

    groups: tuple[KeyGroup, ...]
    repartitions: tuple[Repartition, ...]
    contracts: Contracts = dataclasses.field(default_factory=Contracts, compare=False)
    """What is declared of the streams, and their topics."""

    @property
    def copies(self) -> dict[str, str]:
        """The topic of which each internal one is a copy."""
        return {each.topic: each.source for each in self.repartitions}

    @property
    def links(self) -> tuple[Link, ...]:
        """Where junctions lead, of all groups."""
        return tuple(link for group in self.groups for link in group.links)

    @property
    def forming(self) -> tuple[str, ...]:
        """Junctions that form and dissolve, and that a group reads, sorted."""
        junctions = {each.name for group in self.groups for each in group.ruleset.junctions if each.forms is not None}
        return tuple(sorted(junctions.intersection(link.junction for link in self.links)))

    @property
    def timed(self) -> dict[str, KeyGroup]:
        """Topics of results that say how far event time is, each with the group that makes them."""
        return {metrics_topic(stream): group for group in self.groups for stream in sorted(group.results)}

    @property
    def inputs(self) -> tuple[str, ...]:
        """Topics that others write and a domain reads, itself or by a repartitioned copy, sorted."""
        made = {name for group in self.groups for name in group.ruleset.made}
        topics = {topic for group in self.groups for name, topic in group.topics.items() if name not in made}
        sources = {each.source for each in self.repartitions if each.stream not in made}
        return tuple(sorted(topics - self.copies.keys() | sources))

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that a domain reads, sorted."""
        return tuple(sorted({topic for group in self.groups for topic in group.topics.values()}))

    def part(self, role: str) -> Plan:
        """The plan of one role: its groups, and all copies."""
        return replace(self, groups=tuple(group for group in self.groups if group.role == role))

    @property
    def streams(self) -> tuple[str, ...]:
        """Every stream that a group reads from a topic, sorted."""
        return tuple(sorted({stream for group in self.groups for stream in group.topics}))

    @property
    def copied_by(self) -> dict[str, tuple[str, ...]]:
        """Topics of others of which rules read copies, with the fields by which these rules correlate."""
        fields: dict[str, tuple[str, ...]] = {}
        for each in self.repartitions:
            if each.field == ALL_KEYS:
                continue  # these rules need no field
            rules = (rule for group in self.groups if group.field == each.field for rule in group.ruleset.rules)
            if each.source == self.contracts.topic_of(each.stream) and any(
                each.stream in rule.streams for rule in rules
            ):
                fields[each.source] = (*fields.get(each.source, ()), each.field)
        return fields

    @property
    def partitioned_by(self) -> dict[str, str]:
        """Topics of others that a domain reads as they are, with the key by which they are taken to be partitioned.

        Not those of which a declaration states it (``partitioned: true``), nor the catalog's own.
        """
        return {topic: key for topic, key in self.placed_by.items() if not self._vouches(topic)}

    @property
    def placed_by(self) -> dict[str, str]:
        """The same, with the topics of which a declaration states it: what it says may be wrong."""
        own = set(self.inputs)
        found: dict[str, str] = {}
        for group in self.groups:
            for stream, topic in group.topics.items():
                contract = self.contracts.of_stream(stream)
                if topic in own and (contract.event_type is None or contract.declaration is not None):
                    found[topic] = contract.key_field
        return found

    def _vouches(self, topic: str) -> bool:
        """Whether a declaration states that the producer of a topic partitions it by the key."""
        declared = self.contracts.of_topic(topic).declaration
        return declared is not None and declared.key.partitioned is True

    def describe(self) -> list[str]:
        """Readable lines: which group reads which topics, and which stream is repartitioned."""
        lines = []
        for group in self.groups:
            makers = (*group.ruleset.rules, *group.ruleset.windows, *group.ruleset.insight)
            lines.append(f"{group.title}: {', '.join(each.name for each in makers)}")
            lines += [f"  {stream} <- {topic}" for stream, topic in sorted(group.topics.items())]
        return lines + self.describe_junctions() + self.describe_copies()

    def describe_junctions(self) -> list[str]:
        """A line for each topic to which a junction leads, and for each that no rule reads."""
        lines = []
        for group in self.groups:
            led = junction_sources(group.ruleset)
            for junction in (each for each in group.ruleset.junctions if each.name in led):
                rules = ", ".join(led[junction.name])
                to = [link for link in group.links if link.junction == junction.name]
                lines += [f"junction {link.junction}: {rules} -> {link.topic}" for link in to]
                if not to:
                    lines.append(f"junction {junction.name}: {rules} -> no rule reads it")
        return lines

    def describe_copies(self) -> list[str]:
        """A line for each repartitioned stream."""
        return [
            f"repartition {each.source}{f' ({each.partitions} partitions)' if each.partitions is not None else ''} "
            f"by {each.field or 'null'} -> {each.topic}"
            for each in self.repartitions
        ]


def uneven_topics(partitions: Mapping[str, int], domains: int) -> dict[str, int]:
    """Topics of others that have another number of partitions than there are domains, with that number."""
    return {topic: count for topic, count in partitions.items() if count != domains and not is_derived(topic)}


def key_groups(ruleset: RuleSet) -> list[KeyGroup]:
    """The groups of a rule set without their topics, and what follows from these."""
    made = _made(ruleset)
    groups = []
    for layer in layers(ruleset):
        here = {each.name for each in layer.ruleset.windows} | {each.name for each in layer.ruleset.rules}
        for field in dict.fromkeys(field for name, field in made.items() if name in here):
            own = RuleSet(
                rules=tuple(rule for rule in layer.ruleset.rules if made[rule.name] == field),
                windows=tuple(window for window in layer.ruleset.windows if made[window.name] == field),
                streams=ruleset.streams,
            )
            own = with_junctions(own, layer.ruleset.junctions)
            groups.append(KeyGroup(field, own, {}, depth=layer.depth, generation=layer.generation, newest=layer.newest))
    if ruleset.insight:
        own = RuleSet(insight=ruleset.insight, streams=ruleset.streams)
        groups.append(KeyGroup(RUN, own, {}, role="insight"))
    return groups


def _made(ruleset: RuleSet) -> dict[str, str]:
    """The field by which each window and rule correlates."""
    made = {window.name: window.by for window in ruleset.windows}
    return made | {rule.name: rule.by or ALL_KEYS for rule in ruleset.rules}


def make_plan(
    ruleset: RuleSet,
    catalog: Catalog = CATALOG,
    *,
    existing: Collection[str] = (),
    uneven: Mapping[str, int] | None = None,
) -> Plan:
    """The plan of a rule set. Streams that are not declared are assumed to be keyed by ``key``.

    ``existing`` are the topics of the broker or the log: a stream that is not declared and whose topic
    ``mono.<stream>`` does not exist is read from the topic of its own name, if that does. ``uneven`` are those of
    `uneven_topics`: every role that makes a plan from the same rules and topics makes the same. Raises InvalidRule if
    rules or windows read one another in a circle, also across groups, if two streams share a topic, and for a stream
    that is named by a pattern.
    """
    uneven = uneven or {}
    contracts = contracts_of(ruleset, catalog, existing=existing)
    refuse_circles(ruleset)
    if problems := [*junction_problems(ruleset)]:
        raise InvalidRules(problems)
    made = _made(ruleset)
    keys = made | {spec.name: RUN for spec in ruleset.insight}
    deep, groups = depths(ruleset), key_groups(ruleset)
    junctions = {junction.name for group in groups for junction in group.ruleset.junctions}
    declared = {
        each.name: contracts.of_stream(each.name).key_field if each.is_partitioned else None for each in ruleset.streams
    }
    repartitions: dict[str, Repartition] = {}
    for group in groups:
        field, topics = group.field, group.topics
        copied: set[str] = set()
        for stream in sorted(group.ruleset.read - group.makers):  # what is made here is read in event-time order
            if stream in junctions:
                topics[stream] = keyed_topic(stream, field)
                continue
            topics[stream] = metrics_topic(stream) if stream in keys else contracts.topic_of(stream)
            if stream not in keys and set("*?") & set(topics[stream]):
                raise InvalidRule(
                    f"stream {stream!r} looks like a pattern; a step reads one stream, of exactly that name: write a "
                    "step for each (under `any`, where each of them is a match)"
                )
            key = keys[stream] if stream in keys else _key_of(stream, declared, catalog)
            # A key that the topic is not partitioned by (None) is read from the body: the stream is copied by it.
            keyed = field == key or (field == "key" and key is not None)
            if group.role == "insight" and stream not in keys:
                keyed = False  # only in a copy are doubtful clocks judged already, as where the original is counted
            if not keyed or topics[stream] in uneven:
                copied.add(stream)
        others = {stream for stream in topics if stream not in keys and stream not in junctions}
        copied |= _beside_copies(others, copied, contracts, topics, uneven)
        for stream in sorted(copied):
            source, topics[stream] = topics[stream], keyed_topic(stream, field)
            copy = Repartition(stream, source, field, topics[stream], uneven.get(source))
            repartitions[copy.topic] = copy
    read = {stream for group in groups for stream in group.topics}
    feeders: dict[str, list[str]] = {}
    for group in groups:
        for junction in junction_sources(group.ruleset):
            feeders.setdefault(junction, []).append(group.name)
    links = {
        Link(stream, group.field, topic, tuple(feeders[stream])): None
        for group in groups
        for stream, topic in sorted(group.topics.items())
        if stream in junctions
    }
    whole = [
        replace(
            group,
            exports=frozenset(rule.name for rule in group.ruleset.rules if rule.name in read),
            links=tuple(link for link in links if link.junction in junction_sources(group.ruleset)),
            carriers=frozenset(name for name in group.topics if name in made and deep[name]),
        )
        for group in groups
    ]
    plan = Plan(tuple(whole), tuple(repartitions.values()), contracts)
    return replace(plan, groups=tuple(replace(group, results=_results(group, plan)) for group in whole))


def _results(group: KeyGroup, plan: Plan) -> frozenset[str]:
    """What a group makes and others read as it is, and can wait for: once made it is final, in order of event time.

    Not where a group that reads it makes, directly or not, what this one reads: each would wait for the other.
    """
    final = {each.name for each in group.ruleset.windows if each.late == "drop" and each.emit == "close"}
    final |= {each.name for each in group.ruleset.insight} | group.exports
    found = set()
    for stream in final:
        topic = metrics_topic(stream)
        readers = [each for each in plan.groups if topic in each.topics.values()]
        if readers and topic not in plan.copies.values() and not any(_feeds(each, group, plan) for each in readers):
            found.add(stream)
    return frozenset(found)


def _feeds(maker: KeyGroup, reader: KeyGroup, plan: Plan) -> bool:
    """Whether something that a group makes comes to another, directly or through others."""
    todo, seen = [maker], {maker.name + maker.role}
    while todo:
        made = todo[-1].makers | {link.junction for link in todo.pop().links}
        for each in plan.groups:
            if made.intersection(each.topics):
                if each is reader:
                    return True
                if each.name + each.role not in seen:
                    seen.add(each.name + each.role)
                    todo.append(each)
    return False


def refuse_topics(plan: Plan) -> Plan:
    """The plan, if it can run with a broker. Raises InvalidRule.

    Kafka has to take its topics, and what is left out of a stream by its declaration can only be what all rules read of
    it as it is: decisions name offsets, and those of a copy mean nothing to a replay.
    """
    overload = {stream.name: stream.overload for group in plan.groups for stream in group.ruleset.streams}
    of_rules = {topic for group in plan.groups if group.role == "correlate" for topic in group.topics.values()}
    for copy in plan.repartitions:
        policy = overload.get(copy.stream)
        if policy is not None and policy.leaves_out and copy.topic in of_rules:
            raise InvalidRule(
                f"stream {copy.stream!r} declares overload {policy.policy}, and rules read it repartitioned by "
                f"{copy.field or 'null'!r}, where nothing can be left out; key the stream by that field, in a topic of "
                "as many partitions as there are domains, or write overload: block"
            )
    for copy in plan.repartitions:
        if (why := why_illegal(copy.topic)) is not None:
            raise InvalidRule(
                f"stream {copy.stream!r} is repartitioned by {copy.field or 'null'!r} into the topic {copy.topic!r}, "
                f"which Kafka does not take: {why}; name the stream otherwise, and declare its topic"
            )
    for group in plan.groups:
        for stream, topic in sorted(group.topics.items()):
            if (why := why_illegal(topic)) is not None:
                raise InvalidRule(
                    f"stream {stream!r} is read from the topic {topic!r}, which Kafka does not take: {why}; name the "
                    "stream otherwise, and declare its topic"
                )
    return plan


def _beside_copies(
    others: Collection[str],
    copied: Collection[str],
    contracts: Contracts,
    topics: Mapping[str, str],
    uneven: Mapping[str, int],
) -> set[str]:
    """Those of the streams of ``others`` that must be copied because streams beside them are partitioned here.

    Copies are partitioned as Kafka's own clients do it. Producers of other libraries may do it otherwise, so that keys
    would be in other partitions there, and so may one of which a declaration says that it partitions itself.
    """
    here = len(copied) > 0 or len(others) < len(topics)
    by_count = any(topics[stream] in uneven for stream in copied)
    found = set()
    for stream in others:
        contract = contracts.of_stream(stream)
        declared = contract.declaration
        itself = declared is not None and declared.key.partitioned is True
        foreign = contract.event_type is None or declared is not None
        if stream not in copied and ((itself and here) or (foreign and by_count)):
            found.add(stream)
    return found


def contracts_of(
    ruleset: RuleSet, catalog: Catalog = CATALOG, *, existing: Collection[str] = (), streams: Collection[str] = ()
) -> Contracts:
    """The contracts of the streams that a rule set reads, and of ``streams``; ``existing`` as for `make_plan`.

    Raises InvalidRule for two streams of one topic, also where only one of them is declared: the other is one that the
    rules read, or that the catalog lists and stores hold, and would lose its events to the first.
    """
    made, read = ruleset.made, ruleset.read
    declared = {stream.name for stream in ruleset.streams if stream.topic is not None}
    topics = {
        stream: stream
        for stream in sorted((read | {*streams}) - made - declared)
        if stream in existing and mono_topic(stream) not in existing
    }
    contracts = Contracts(ruleset.streams, catalog, topics=topics, correlated=correlated_fields(ruleset))
    listed = [event_type.stream for event_type in catalog]
    others = dict.fromkeys([*sorted(read - made), *streams, *listed])
    for _, reason in shared_topics(contracts.topics | {each: contracts.topic_of(each) for each in others}):
        raise InvalidRule(reason)
    return contracts


def decoders_of(contracts: Contracts, *, json_only: bool = False) -> Decoders:
    """The decoders of the streams, with the settings of this process for those that need some.

    ``json_only``: for rows of files, which are JSON records whatever decoder the stream's topic has. Raises
    InvalidSettings.
    """
    return Decoders(contracts, lambda decoder: load_settings().of(decoder), json_only=json_only)


def checked_plan(ruleset: RuleSet, *, existing: Collection[str] = (), uneven: Mapping[str, int] | None = None) -> Plan:
    """The plan of a rule set that can run, as `make_plan` makes it: its rules are compiled as well.

    Raises InvalidRule for a rule that is too large, and what `make_plan` and `refuse_topics` raise.
    """
    from astrocyte.agents.engine.engine import Engine  # loads the compiler, which a plan alone does not need

    plan = refuse_topics(make_plan(ruleset, existing=existing, uneven=uneven))
    decoders_of(plan.contracts)
    for group in plan.groups:
        Engine(group.ruleset, exports=group.exports, carriers=group.carriers, newest=group.newest)
    return plan


def _key_of(stream: str, declared: dict[str, str | None], catalog: Catalog) -> str | None:
    if stream in declared:
        return declared[stream]
    event_type = catalog.find(stream)
    return event_type.key if event_type is not None else "key"
