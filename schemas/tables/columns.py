"""Definitions of SQL columns that are no fields of a stream; columns of a field's name have the field's definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from astrocyte.schemas.catalog import CATALOG, Field
from astrocyte.schemas.tables.base import Base

__all__ = ["STREAM_OF", "columns_of"]

_STATUS: Final = Field(
    "string", "final; under eventual consistency provisional, then confirmed or retracted",
    null="of rows that an earlier version wrote",
)  # fmt: skip

STREAM_OF: Final[Mapping[str, str]] = {
    "agent_actions": "agent_actions",
    "agent_states": "agent_states",
    "agents": "agents",
    "cell_genomes": "genome_data",
    "cells": "cell_vitals",
    "dna_mutations": "dna.mutation_applied",
    "dna_snapshots": "dna.snapshot_created",
    "evolutionary_events": "evolutionary_events",
    "health_incidents": "health_incidents",
    "karma_scores": "dna.karma_updated",
    "kernel_geometry": "kernel_geometry",
    "kernel_history": "kernel_geometry",
    "learning_experiences": "learning_experiences",
    "population_metrics": "population_metrics",
    "problem_results": "problem_solving",
    "resource_states": "resource_states",
    "simulation_steps": "simulation_steps",
    "spikes": "axon_1",
    "war_history": "war_history",
}
"""Table -> stream whose events it holds."""

_EVENT: Final = "us since 1970, event time"
_WALL: Final = "us since 1970, wall time"

_COMMON: Final[Mapping[str, Field]] = {
    "simulation_id": Field("string", "the run that the row belongs to", null="where other programs made the events"),
    "timestamp": Field("int64", "event time of the row", _EVENT),
    "recorded_at": Field("int64", "when the sink first wrote the row; retention goes by it", _WALL),
    "id": Field("int64", "sequence number of the event in its run and stream"),
    "status": Field("string", "type of the event"),
}

_OWN: Final[Mapping[str, Mapping[str, Field]]] = {
    "agent_states": {"id": Field("string", "'<agent_id>-<step_number>'")},
    "agents": {
        "genome_id": replace(CATALOG["agents"].about["genome_id"], doc="founding genome, inherited, at birth"),
    },
    "alerts": {
        "alert_id": Field("string", "id of the alert, a function of its multi event"),
        "rule": Field("string", "rule that made it"),
        "severity": Field("string", "info, warning or critical"),
        "message": Field("string", "the rule's message with its values"),
        "event_key": Field("string", "key by which the rule correlated", null="without a key"),
        "multi_event_id": Field("string", "the multi event, in multi_events"),
        "status": _STATUS,
    },
    "audit_log": {
        "entry": Field("int64", "number of the entry, from 1 without gaps"),
        "kind": Field("string", "stream, rule_change, or control topic"),
        "subject": Field("string", "agent, rule or run that it is about", null="where the record names none"),
        "event_id": Field("string", "id of the record"),
        "payload": Field("string", "the record as it was received"),
        "previous_hash": Field("string", "hash of the entry before"),
        "hash": Field("string", "hash of this entry and of previous_hash"),
    },
    "cell_genomes": {"timestamp": Field("int64", "event time of the newest genome", _EVENT)},
    "cells": {
        "timestamp": Field("int64", "event time of the newest vitals; 0 if there are none", _EVENT),
        "alive": Field("bool", "false from the cell's death on"),
        "died_at": Field("int64", "event time of the cell's death", _EVENT, null="while it lives"),
    },
    "dead_letters": {
        "letter_id": Field("string", "id, a function of place and stage"),
        "timestamp": Field("int64", "Kafka's time of the record", "us since 1970", null="where it has none"),
        "stage": Field("string", "what refused it: decode, validate, clock, rules, or the name of a sink or role"),
        "reason": Field("string", "why it was refused"),
        "source_topic": Field("string", "topic of the record"),
        "source_partition": Field("int64", "partition of the record"),
        "source_offset": Field("int64", "offset of the record"),
        "source_row": Field("int64", "row of the frame", null="where the record is one event"),
        "record_key": Field("string", "Kafka key, as bytes", null="without a key"),
        "payload": Field("string", "the record as it was received, as bytes", null="without a value"),
        "headers": Field("json", "Kafka headers, values in base64", null="without headers"),
    },
    "experiments": {
        "experiment_id": Field("string", "id of the experiment"),
        "name": Field("string", "name"),
        "description": Field("string", "what it is about", null="if not given"),
        "hypothesis": Field("string", "what it tests", null="if not given"),
        "creation_date": Field("string", "when the row was made", "UTC, wall time"),
        "last_updated": Field("string", "when the row was last changed by a program", "UTC, wall time",
                              null="if it never was"),
        "status": Field("string", "active, or what a program sets"),
        "tags": Field("json", "list of tags", null="if not given"),
        "variables": Field("json", "what is varied", null="if not given"),
        "results_summary": Field("json", "results that a program sets", null="if not set"),
        "notes": Field("string", "notes", null="if not given"),
    },
    "kernel_geometry": {
        "timestamp": Field("int64", "event time of the row's values; 0 for a kernel known only from wars", _EVENT),
    },
    "multi_events": {
        "event_id": Field("string", "id, a function of rule, version, events and their steps"),
        "event_type": Field("string", "MULTI_ORIGINATED"),
        "correlation_rule": Field("string", "rule that made it"),
        "rule_version": Field("string", "version of the rule, a function of its content"),
        "event_key": Field("string", "key by which the rule correlated", null="without a key"),
        "integrated_value": Field("float64", "value that the rule emits under this name", null="if it emits none"),
        "confidence": Field("float64", "value that the rule emits under this name, 1 by default", "share", 0.0, 1.0),
        "provisional": Field("bool", "true of a match that the ordered pass has not confirmed yet"),
        "status": _STATUS,
        "details": Field("json", "the other values that the rule emits", null="if it emits none"),
    },
    "multi_event_sources": {
        "event_id": Field("string", "the multi event"),
        "position": Field("int64", "number of the source in source_events, from 0"),
        "source_event_id": Field("string", "id of the source event"),
        "stream": Field("string", "its stream, window or rule"),
        "step": Field("string", "step of the rule that took it"),
        "timestamp": Field("int64", "its event time", _EVENT),
        "source_topic": Field("string", "topic from which it was read", null="of results of windows and rules"),
        "source_partition": Field("int64", "its partition", null="of results of windows and rules"),
        "source_offset": Field("int64", "its offset", null="of results of windows and rules"),
    },
    "resource_states": {"id": Field("int64", "step_number * 2^31 + resource_id")},
    "simulation_config": {
        "config_id": Field("int64", "number of the configuration in its run, from 1"),
        "timestamp": Field("int64", "event time from which it holds", _EVENT, null="from the start"),
        "config_data": Field("string", "settings of the scenario, as JSON"),
    },
    "simulations": {
        "experiment_id": Field("string", "experiment that the run belongs to", null="if none is known"),
        "start_time": Field("string", "earliest event time; of a run that a program logs itself, when it began",
                            "UTC, event time", null="before its first event"),
        "end_time": Field("string", "event time at which it ended; of a run that a program logs itself, when it ended",
                          "UTC, event time", null="while it runs"),
        "status": Field("string", "running, completed, or failed"),
        "parameters": Field("json", "parameters that a program sets", null="if not set"),
        "results_summary": Field("json", "results that a program sets", null="if not set"),
        "simulation_db_path": Field("string", "file of a run that has one of its own", null="if it has none"),
    },
    "sink_positions": {
        "sink": Field("string", "name of the sink"),
        "topic": Field("string", "topic that it reads"),
        "partition_number": Field("int64", "partition"),
        "next_offset": Field("int64", "offset after the last record that is stored"),
        "recorded_at": Field("int64", "when the row was last written", _WALL),
    },
    "spikes": {
        "axon": Field("string", "stream of the spike: axon_1, axon_2 or axon_3"),
        "domain": Field("string", "domain that the spike reaches: the event's key"),
        "type": Field("string", "type of the spike", values=("A", "B", "C")),
    },
    "problem_results": {"solved": Field("bool", "whether the attempt succeeded, with its accuracy as the probability")},
    "window_results": {
        "window_name": Field("string", "the window or statistic"),
        "event_key": Field(
            "string", "key of the window's group; empty without a key. Of a statistic: what the result is about"
        ),
        "field": Field("string", "field of the result (Windows, below), or the one by which the window groups"),
        "window_end": Field("int64", "end of the window, excluded", _EVENT),
        "window_start": Field("int64", "start of the window, included", _EVENT),
        "value": Field("float64", "value of the field, if it is a number; true is 1", null="of a text or null"),
        "text": Field("string", "value of the field, if it is no number", null="of a number"),
        "result_id": Field("string", "id of the result, as multi_event_sources names it"),
    },
}  # fmt: skip


def columns_of(table: str) -> dict[str, Field | None]:
    """Definition of each column of a table, in the table's order; None where there is none."""
    stream = STREAM_OF.get(table)
    known = {**_COMMON, **(CATALOG[stream].about if stream is not None else {}), **_OWN.get(table, {})}
    return {name: known.get(name) for name in Base.metadata.tables[table].c.keys()}  # noqa: SIM118  a collection
