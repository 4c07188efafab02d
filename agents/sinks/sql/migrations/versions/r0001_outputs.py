"""Simulations and the pipeline's outputs: multi events, alerts, dead letters, positions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of the outputs."""
    op.create_table(
        "simulations",
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("start_time", sa.DateTime(), nullable=True),
        sa.Column("end_time", sa.DateTime(), nullable=True),
        sa.Column("status", sa.String(length=50), nullable=True),
        sa.Column("parameters", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("results_summary", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("simulation_db_path", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("simulation_id", name=op.f("pk_simulations")),
    )
    op.create_table(
        "multi_events",
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=True),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("event_type", sa.String(length=32), nullable=False),
        sa.Column("correlation_rule", sa.String(length=128), nullable=False),
        sa.Column("rule_version", sa.String(length=64), nullable=True),
        sa.Column("event_key", sa.String(length=256), nullable=True),
        sa.Column("integrated_value", sa.Float(precision=53), nullable=True),
        sa.Column("confidence", sa.Float(precision=53), nullable=True),
        sa.Column("provisional", sa.Boolean(), nullable=True),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_multi_events_simulation_id")
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_multi_events")),
    )
    op.create_index(
        op.f("ix_multi_events_correlation_rule_timestamp"),
        "multi_events",
        ["correlation_rule", "timestamp"],
        unique=False,
    )
    op.create_index(
        op.f("ix_multi_events_simulation_id_timestamp"), "multi_events", ["simulation_id", "timestamp"], unique=False
    )
    op.create_index(op.f("ix_multi_events_timestamp"), "multi_events", ["timestamp"], unique=False)
    op.create_table(
        "multi_event_sources",
        sa.Column("event_id", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=True),
        sa.Column("source_event_id", sa.String(length=128), nullable=False),
        sa.Column("stream", sa.String(length=249), nullable=True),
        sa.Column("step", sa.String(length=128), nullable=True),
        sa.Column("timestamp", sa.BigInteger(), nullable=True),
        sa.Column("source_topic", sa.String(length=249), nullable=True),
        sa.Column("source_partition", sa.Integer(), nullable=True),
        sa.Column("source_offset", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["event_id"], ["multi_events.event_id"], name=op.f("fk_multi_event_sources_event_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_multi_event_sources_simulation_id")
        ),
        sa.PrimaryKeyConstraint("event_id", "position", name=op.f("pk_multi_event_sources")),
    )
    op.create_index(
        op.f("ix_multi_event_sources_source_event_id"), "multi_event_sources", ["source_event_id"], unique=False
    )
    op.create_table(
        "alerts",
        sa.Column("alert_id", sa.String(length=64), nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=True),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.String(length=128), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("event_key", sa.String(length=256), nullable=True),
        sa.Column("multi_event_id", sa.String(length=64), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_alerts_simulation_id")),
        sa.PrimaryKeyConstraint("alert_id", name=op.f("pk_alerts")),
    )
    op.create_index(op.f("ix_alerts_multi_event_id"), "alerts", ["multi_event_id"], unique=False)
    op.create_index(op.f("ix_alerts_severity_timestamp"), "alerts", ["severity", "timestamp"], unique=False)
    op.create_index(op.f("ix_alerts_simulation_id_timestamp"), "alerts", ["simulation_id", "timestamp"], unique=False)
    op.create_index(op.f("ix_alerts_timestamp"), "alerts", ["timestamp"], unique=False)
    op.create_table(
        "dead_letters",
        sa.Column("letter_id", sa.String(length=64), nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=True),
        sa.Column("timestamp", sa.BigInteger(), nullable=True),
        sa.Column("stage", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("source_topic", sa.String(length=249), nullable=False),
        sa.Column("source_partition", sa.Integer(), nullable=False),
        sa.Column("source_offset", sa.BigInteger(), nullable=False),
        sa.Column("source_row", sa.BigInteger(), nullable=True),
        sa.Column("record_key", sa.LargeBinary(), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("headers", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_dead_letters_simulation_id")
        ),
        sa.PrimaryKeyConstraint("letter_id", name=op.f("pk_dead_letters")),
    )
    op.create_index(
        op.f("ix_dead_letters_source_topic_source_partition_source_offset"),
        "dead_letters",
        ["source_topic", "source_partition", "source_offset"],
        unique=False,
    )
    op.create_index(op.f("ix_dead_letters_timestamp"), "dead_letters", ["timestamp"], unique=False)
    op.create_table(
        "sink_positions",
        sa.Column("sink", sa.String(length=64), nullable=False),
        sa.Column("topic", sa.String(length=249), nullable=False),
        sa.Column("partition_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("sink", "topic", "partition_number", name=op.f("pk_sink_positions")),
    )
