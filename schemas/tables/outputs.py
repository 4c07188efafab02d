"""Tables of the pipeline's outputs: multi events and their sources, windows, alerts, dead letters, audit, positions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Text,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from astrocyte.schemas.tables.base import Base, Json, Real, Recorded, simulation_key

__all__ = [
    "AlertRow",
    "AuditEntryRow",
    "DeadLetterRow",
    "MultiEventRow",
    "MultiEventSource",
    "SinkPosition",
    "WindowResult",
    "stands",
]


class MultiEventRow(Recorded, Base):
    """A multi event. ``timestamp`` is its event time in microseconds; ``details`` the rule's other values.

    ``simulation_id`` is null where other programs produced the events. Under eventual consistency a row changes: see
    ``status`` (final, provisional, confirmed, retracted).
    """

    __tablename__ = "multi_events"

    event_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    simulation_id: Mapped[str | None] = simulation_key(nullable=True)
    timestamp: Mapped[int] = mapped_column(BigInteger)
    event_type: Mapped[str] = mapped_column(String(32))
    correlation_rule: Mapped[str] = mapped_column(String(128))
    rule_version: Mapped[str | None] = mapped_column(String(64))
    event_key: Mapped[str | None] = mapped_column(String(256))
    integrated_value: Mapped[float | None] = mapped_column(Real)
    confidence: Mapped[float | None] = mapped_column(Real)
    provisional: Mapped[bool | None] = mapped_column(Boolean)
    status: Mapped[str | None] = mapped_column(String(16))
    details: Mapped[Any | None] = mapped_column(Json)

    __table_args__ = (
        Index(None, "correlation_rule", "timestamp"),
        Index(None, "timestamp"),
        Index(None, "simulation_id", "timestamp"),
    )


class MultiEventSource(Base):
    """One source event of a multi event, down to topic, partition and offset: its lineage.

    ``position`` counts the sources in the order of ``source_events``.
    """

    __tablename__ = "multi_event_sources"

    event_id: Mapped[str] = mapped_column(String(64), ForeignKey("multi_events.event_id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer, autoincrement=False)
    simulation_id: Mapped[str | None] = simulation_key(nullable=True)
    source_event_id: Mapped[str] = mapped_column(String(128))
    stream: Mapped[str | None] = mapped_column(String(249))
    step: Mapped[str | None] = mapped_column(String(128))
    timestamp: Mapped[int | None] = mapped_column(BigInteger)
    source_topic: Mapped[str | None] = mapped_column(String(249))
    source_partition: Mapped[int | None] = mapped_column(Integer)
    source_offset: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (PrimaryKeyConstraint("event_id", "position"), Index(None, "source_event_id"))


class WindowResult(Recorded, Base):
    """One field of one result of a window or statistic: a curve is the rows of one name, key and field, by its end.

    Times are event times in microseconds, start included and end excluded. A later revision replaces an earlier one.
    ``value`` holds numbers (true is 1), ``text`` everything else. The field by which the window groups, other than the
    simulation, has rows as well. The key of a statistic's result says what it is about, such as the trait: the run is
    the simulation. ``result_id`` is the id by which a multi event names the result as its source, among those of one
    ``window_end``, by which the table is indexed.
    """

    __tablename__ = "window_results"

    window_name: Mapped[str] = mapped_column(String(128))
    simulation_id: Mapped[str] = simulation_key()
    event_key: Mapped[str] = mapped_column(String(256))
    field: Mapped[str] = mapped_column(String(128))
    window_end: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    window_start: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    value: Mapped[float | None] = mapped_column(Real)
    text: Mapped[str | None] = mapped_column(Text)
    result_id: Mapped[str | None] = mapped_column(String(64))

    __table_args__ = (
        PrimaryKeyConstraint("simulation_id", "window_name", "field", "event_key", "window_end", "window_start"),
        Index(None, "window_end"),
    )


class AlertRow(Recorded, Base):
    """An alert, with the status of its multi event.

    That is on another topic and may be stored later: ``multi_event_id`` is no foreign key.
    """

    __tablename__ = "alerts"

    alert_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    simulation_id: Mapped[str | None] = simulation_key(nullable=True)
    timestamp: Mapped[int] = mapped_column(BigInteger)
    rule: Mapped[str] = mapped_column(String(128))
    severity: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Text)
    event_key: Mapped[str | None] = mapped_column(String(256))
    multi_event_id: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[str | None] = mapped_column(String(16))

    __table_args__ = (
        Index(None, "severity", "timestamp"),
        Index(None, "timestamp"),
        Index(None, "multi_event_id"),
        Index(None, "simulation_id", "timestamp"),
    )


class DeadLetterRow(Recorded, Base):
    """A record that could not be processed, whole, with the reason and its topic, partition and offset."""

    __tablename__ = "dead_letters"

    letter_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    simulation_id: Mapped[str | None] = simulation_key(nullable=True)
    timestamp: Mapped[int | None] = mapped_column(BigInteger)
    stage: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(Text)
    source_topic: Mapped[str] = mapped_column(String(249))
    source_partition: Mapped[int] = mapped_column(Integer)
    source_offset: Mapped[int] = mapped_column(BigInteger)
    source_row: Mapped[int | None] = mapped_column(BigInteger)
    record_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    payload: Mapped[bytes | None] = mapped_column(LargeBinary)
    headers: Mapped[Any | None] = mapped_column(Json)

    __table_args__ = (Index(None, "source_topic", "source_partition", "source_offset"), Index(None, "timestamp"))


class AuditEntryRow(Recorded, Base):
    """One entry of the audit chain: ``hash`` covers the entry and ``previous_hash`` (`agents.sinks.audit.chain`)."""

    __tablename__ = "audit_log"

    entry: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    simulation_id: Mapped[str | None] = mapped_column(String(64))
    timestamp: Mapped[int] = mapped_column(BigInteger)
    kind: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str | None] = mapped_column(String(256))
    event_id: Mapped[str] = mapped_column(String(128), unique=True)
    payload: Mapped[str] = mapped_column(Text)
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))

    __table_args__ = (Index(None, "kind", "timestamp"), Index(None, "subject"))


class SinkPosition(Base):
    """Next offset of a partition that a sink reads, written in the same transaction as the rows."""

    __tablename__ = "sink_positions"

    sink: Mapped[str] = mapped_column(String(64))
    topic: Mapped[str] = mapped_column(String(249))
    partition_number: Mapped[int] = mapped_column(Integer, autoincrement=False)
    next_offset: Mapped[int] = mapped_column(BigInteger)
    recorded_at: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (PrimaryKeyConstraint("sink", "topic", "partition_number"),)


def stands(table: FromClause) -> ColumnElement[bool]:
    """Of ``multi_events`` and ``alerts``: whether a row was not retracted."""
    return func.coalesce(table.c.status, "") != "retracted"
