"""``astrocyte topology``: which domains are linked, by which junctions, and which workers have them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from astrocyte.pipeline.cli.options import (
    AsJson,
    Lateness,
    broker_address,
    broker_option,
    event_time,
    read,
    refuse_swapped,
    rule_names,
)
from astrocyte.pipeline.console import print_json, printable
from astrocyte.schemas.errors import InvalidSettings

if TYPE_CHECKING:
    from astrocyte.agents.rules.model import RuleSet
    from astrocyte.pipeline.analysis.topology.picture import Topology

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("topology")(topology_command)


def topology_command(
    *,
    rules: Annotated[
        str, typer.Argument(help="Rule file, or name of a shipped one such as axons.", autocompletion=rule_names)
    ],
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE...]", help="Recorded logs or files of events; else the broker.")
    ] = None,
    broker: Annotated[str | None, broker_option("Kafka address; default: ASTROCYTE_BROKER.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="As it was at this event time; default: the last one.")
    ] = None,
    lateness: Lateness = None,
    as_json: AsJson = False,
) -> None:
    """Draw domains, junctions, streams and workers as Mermaid text: what is there now, or was at a past instant.

    Arrows of junctions that join no two domains are dotted.
    """
    import time

    from astrocyte.pipeline.analysis.topology.decisions import decisions_of_files, states_at
    from astrocyte.pipeline.analysis.topology.picture import Topology
    from astrocyte.pipeline.kafka.offsets import parse_time_us
    from astrocyte.pipeline.topology.plan import make_plan

    if paths and broker is not None:
        raise InvalidSettings(f"--broker {broker} and {paths[0]} are two inputs; give one of them")
    refuse_swapped(rules, paths or ())
    at_us = None if at is None else parse_time_us(at, now_us=time.time_ns() // 1000)
    ruleset = read(rules)
    if paths:
        decisions = decisions_of_files(ruleset, paths, **event_time(lateness))
        found = Topology(make_plan(ruleset), states_at(decisions, at_us), at_us)
    else:
        found = _of_broker(ruleset, broker_address(broker), at_us)
    if as_json:
        print_json(found.as_json())
    else:
        sys.stdout.write(printable(found.mermaid(), lines=True))


def _of_broker(ruleset: RuleSet, broker: str, at_us: int | None) -> Topology:
    import asyncio

    from astrocyte.pipeline.analysis.topology.decisions import decisions_of_broker, states_at
    from astrocyte.pipeline.analysis.topology.picture import Topology
    from astrocyte.pipeline.analysis.topology.workers import members_of
    from astrocyte.pipeline.kafka.client import topic_partitions
    from astrocyte.pipeline.settings import load_settings
    from astrocyte.pipeline.topology.topics import KnownTopics

    settings = load_settings(broker=broker)

    async def look() -> Topology:
        there = await topic_partitions(broker)
        plan = KnownTopics(there, settings.partitions).plan(ruleset)
        states = states_at(await decisions_of_broker(broker, there), at_us)
        workers = await members_of(broker, settings.group) if at_us is None else None
        return Topology(plan, states, at_us, workers)

    return asyncio.run(look())
