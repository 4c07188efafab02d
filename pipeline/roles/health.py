"""Health of the consumer groups of a pipeline: members, state and lag, what `correlate` did not use, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from astrocyte.agents.accounting import summed
from astrocyte.agents.ingest.overload import left_out_lines
from astrocyte.agents.ingest.unused.counts import Unused
from astrocyte.agents.rules.graph.links import not_led_lines
from astrocyte.agents.sinks.registry import SINKS
from astrocyte.pipeline.kafka.client import admin_client, consumer_client, partition_counts, topic_partitions
from astrocyte.pipeline.role_registry import role_names
from astrocyte.pipeline.roles.stalls import doubt_line
from astrocyte.pipeline.settings import Settings
from astrocyte.pipeline.state.snapshot_store import messages_of_topic
from astrocyte.pipeline.topology.group_rules import other_rules
from astrocyte.pipeline.topology.topics import unstored_streams
from astrocyte.pipeline.transport.assignor import note_of, topics_of
from astrocyte.schemas.partitioning import KeySample, spread_keys
from astrocyte.schemas.times import iso_from_us
from astrocyte.schemas.topics import STATS, TopicPartition

__all__ = ["correlate_health", "correlate_summary", "group_health", "group_lag", "remedy"]


async def group_lag(broker: str, group: str) -> int | None:
    """Messages that the group has still to read; None before its first commit.

    All partitions count of the topics to which its members subscribe, or of which it has committed any: one without a
    commit is read from its beginning.
    """
    async with admin_client(broker) as admin:
        committed = await admin.list_consumer_group_offsets(group)
        members = (await admin.describe_consumer_groups([group]))[0].to_object()["groups"][0]["members"]
        counts = await partition_counts(admin)
    if not committed:
        return None
    topics = {place.topic for place in committed}.union(*(topics_of(each["member_metadata"]) for each in members))
    places = [TopicPartition(topic, number) for topic in sorted(topics) for number in range(counts.get(topic, 0))]
    if not places:
        return 0
    async with consumer_client(broker) as consumer:
        begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
    starts = {place: max(committed[place].offset, 0) if place in committed else 0 for place in places}
    return int(sum(max(0, ends[place] - max(begins[place], starts[place])) for place in places))


async def group_health(settings: Settings) -> dict[str, dict[str, Any]]:
    """Members, state and lag of the consumer group of each role; ``rules`` says that its members have different ones.

    ``unstored``: sentences on streams of the settings of which a sink writes nothing.

    Roles that are set are always among them, and others that run. Where none are set, they are those that have a group
    on the broker, since a worker chooses some itself; without any, the default ones.
    """
    states: dict[str, dict[str, Any]] = {}
    notes: dict[str, Counter[str]] = {}
    async with admin_client(settings.broker) as admin:
        groups = {str(group[0]) for group in await admin.list_consumer_groups()}
        there = [role for role in role_names() if f"{settings.group}-{role}" in groups]
        chosen = "roles" in settings.model_fields_set
        for role in dict.fromkeys((*(settings.roles if chosen or not there else ()), *there)):
            response = (await admin.describe_consumer_groups([f"{settings.group}-{role}"]))[0]
            found = response.to_object()["groups"][0]
            state, members = found["state"], found["members"]
            if members or role in settings.roles or not chosen:
                states[role] = {"state": state or "Empty", "members": len(members)}
                notes[role] = Counter(filter(None, (note_of(member["member_metadata"]) for member in members)))
    for role, found in states.items():
        found["lag"] = await group_lag(settings.broker, f"{settings.group}-{role}")
        line = other_rules(notes[role])
        found["rules"] = [] if line is None else [line]
        found["unstored"] = unstored_streams(settings, SINKS.get(role)) if role in SINKS else []
    for role in ("correlate", "insight"):
        if role in states:
            states[role] |= await correlate_health(settings.broker, role)
        if role in states and not states.get("repartition", {}).get("members"):
            _name_absent_role(states[role])
    for role, found in states.items():
        found["do"] = [line] if (line := remedy(role, settings.group, found)) else []
    return states


def remedy(role: str, group: str, found: Mapping[str, Any]) -> str:
    """What to do about the state of a role's consumer group; empty where all is well."""
    state, lag = found["state"], found["lag"]
    if not found["members"]:
        start = f"start one: astrocyte worker --role {role}"
        if state == "Dead" or lag is None:
            return (
                f"no worker of this role has read anything in the group {group!r}; {start}, or set the ASTROCYTE_GROUP "
                "of those that run"
            )
        return f"no worker runs this role; {start}. It goes on where the last one ended"
    if state in ("PreparingRebalance", "CompletingRebalance"):
        return (
            "partitions are being divided: wait. If this lasts for more than a minute, look in the logs for a worker "
            "that starts again and again, or that does not answer"
        )
    if state != "Stable":
        return f"the broker says {state!r} of this group; ask again, and look at the log of the broker"
    if lag is None:
        return "nothing is committed yet: wait, or see whether there are events: astrocyte tap TOPIC -c 5"
    if lag:
        return "records are not read yet: ask again. If the lag grows, start more workers, up to one a partition"
    return ""


def _name_absent_role(found: dict[str, Any]) -> None:
    """Say that no worker has the role for which domains wait."""
    if any(stall["why"] == "repartition" for stall in found["stalls"]):
        found["waits"].append("no worker of this group runs the role repartition")


async def correlate_health(broker: str, role: str = "correlate") -> dict[str, Any]:
    """Last reports of the domains of a role: ``unused`` since their workers began, what is ``absent`` in all of them.

    ``copies`` are sentences on the streams that the rules read from repartitioned copies. ``waiting`` is the number of
    events that wait for event time, ``stalls`` what stalls (`pipeline.roles.stalls`), and ``waits`` says that in lines.
    ``unraised``: by rule the alerts that ``cool_down`` suppressed and ``group`` joined to earlier ones.
    ``corrections``: by eventual rule the matches that were provisional, confirmed and retracted. ``led``: by junction
    the matches that it led on, and those that it did not, by cause. ``left_out``: by stream and policy, the events that
    were left out while a worker was behind. ``skipped``: messages that hold no event by their stream's declaration
    (tombstones). ``reported``: of when the newest of these reports is; a domain reports within `COUNTS_S` of a change.
    """
    newest: dict[bytes, dict[str, Any]] = {}
    there = await topic_partitions(broker)
    if STATS in there:
        async for key, value in messages_of_topic(broker, STATS):
            if key is not None and value is not None and key.startswith(f"{role}/".encode()):
                newest[key] = orjson.loads(value)
    return correlate_summary([stats for _, stats in sorted(newest.items())], there)


def correlate_summary(reports: Sequence[Mapping[str, Any]], there: Mapping[str, int]) -> dict[str, Any]:
    """`correlate_health` of the last reports of the domains; ``there``: partitions of each topic of the broker."""
    total = Unused()
    stalls = [stall for stats in reports for stall in stats.get("stalls", ())]
    absent: list[set[str]] = []
    copies: dict[str, str] = {}
    unraised, corrections, led, left_out = (
        summed(stats.get(name, {}) for stats in reports) for name in ("unraised", "corrections", "led", "left_out")
    )
    doubted: Counter[str] = Counter()
    samples: dict[tuple[str, str], list[tuple[int, KeySample]]] = {}
    said = {stall["topic"] for stall in stalls if stall["why"] == "doubted"}
    for stats in reports:
        doubted.update(stats.get("doubted", {}))
        total.merge(Unused.from_json(stats.get("unused", ())))
        copies |= stats.get("copies", {})
        for topic, each in stats.get("keys", {}).items():
            sample = KeySample.of(each["keys"], each["limit"])
            samples.setdefault((topic, each["by"]), []).append((stats["partition"], sample))
        if "absent" in stats:
            absent.append(set(stats["absent"]))
    spread = [
        found.sentence(topic, by)
        for (topic, by), each in sorted(samples.items())
        if (found := spread_keys(each)) is not None
    ]
    # In the topic `late` stand the events that are late in a copy as well; here each is counted once.
    total = total.once((source, copy) for copy, source in copies.items())
    skipped = sum(stats.get("skipped", 0) for stats in reports)
    reported_us = max((stats.get("reported_us", 0) for stats in reports), default=0)
    return {
        "reported": iso_from_us(reported_us) if reported_us else None,
        "unused": total.as_json(),
        "skipped": skipped,
        "absent": sorted(set.intersection(*absent)) if absent else [],
        "unraised": {rule: dict(counts) for rule, counts in unraised.items()},
        "corrections": {rule: dict(counts) for rule, counts in corrections.items()},
        "led": {junction: dict(counts) for junction, counts in led.items()},
        "left_out": {stream: dict(counts) for stream, counts in left_out.items()},
        "copies": [
            f"{source} ({there.get(source, 0)} partitions) is read repartitioned, from {topic} ({there.get(topic, 0)})"
            for topic, source in sorted(copies.items())
        ],
        "lines": [
            *total.lines(),
            *spread,
            *([f"{skipped:,} tombstone{'' if skipped == 1 else 's'} skipped"] if skipped else []),
            *(_unraised_line(rule, counts) for rule, counts in unraised.items()),
            *(_corrections_line(rule, counts) for rule, counts in corrections.items() if counts.total()),
            *not_led_lines(led),
            *left_out_lines(left_out),
        ],
        "waiting": sum(stats.get("waiting", 0) for stats in reports),
        "stalls": stalls,
        "waits": [
            *(stall["line"] for stall in stalls),
            *(f"{topic}: {doubt_line(count)}" for topic, count in sorted(doubted.items()) if topic not in said),
        ],
    }


def _corrections_line(rule: str, counts: Counter[str]) -> str:
    made, back = counts["provisional"], counts["retracted"]
    share = f" ({back / made:.1%})" if made else ""
    still = made - back - counts["confirmed"]
    undecided = f" and {still:,} are not decided yet" if still else ""
    return f"matches of rule {rule!r} made on arrival: {made:,}, of which {back:,}{share} were retracted{undecided}"


def _unraised_line(rule: str, counts: Counter[str]) -> str:
    parts = [f"{counts['suppressed']:,} suppressed by cool_down"] if counts["suppressed"] else []
    parts += [f"{counts['grouped']:,} joined to earlier ones by group"] if counts["grouped"] else []
    return f"alerts of rule {rule!r}: {', '.join(parts)}"
