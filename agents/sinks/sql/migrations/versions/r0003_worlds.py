"""Cells, kernels, dna, and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from astrocyte.schemas import tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of the scenarios ``cells``, ``kernels`` and ``dna``, and of the audit log."""
    op.create_table(
        "audit_log",
        sa.Column("entry", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=True),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=256), nullable=True),
        sa.Column("event_id", sa.String(length=128), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("entry", name=op.f("pk_audit_log")),
        sa.UniqueConstraint("event_id", name=op.f("uq_audit_log_event_id")),
    )
    op.create_index(op.f("ix_audit_log_kind_timestamp"), "audit_log", ["kind", "timestamp"], unique=False)
    op.create_index(op.f("ix_audit_log_subject"), "audit_log", ["subject"], unique=False)
    op.create_table(
        "cell_genomes",
        sa.Column("cell_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("genome_type", sa.String(length=16), nullable=True),
        sa.Column("metabolism", sa.Float(precision=53), nullable=True),
        sa.Column("growth_rate", sa.Float(precision=53), nullable=True),
        sa.Column("division_size", sa.Float(precision=53), nullable=True),
        sa.Column("mutation_rate", sa.Float(precision=53), nullable=True),
        sa.Column("neural_weights", sa.LargeBinary(), nullable=True),
        sa.Column("tpu_cores", sa.Float(precision=53), nullable=True),
        sa.Column("tpu_memory", sa.Float(precision=53), nullable=True),
        sa.Column("tpu_efficiency", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_cell_genomes_simulation_id")
        ),
        sa.PrimaryKeyConstraint("cell_id", "simulation_id", name=op.f("pk_cell_genomes")),
    )
    op.create_index(
        op.f("ix_cell_genomes_simulation_id_genome_type"),
        "cell_genomes",
        ["simulation_id", "genome_type"],
        unique=False,
    )
    op.create_table(
        "cells",
        sa.Column("cell_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.Column("lineage", sa.BigInteger(), nullable=True),
        sa.Column("energy", sa.Float(precision=53), nullable=True),
        sa.Column("mass", sa.Float(precision=53), nullable=True),
        sa.Column("age_ticks", sa.Integer(), nullable=True),
        sa.Column("alive", sa.Boolean(), nullable=True),
        sa.ForeignKeyConstraint(["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_cells_simulation_id")),
        sa.PrimaryKeyConstraint("cell_id", "simulation_id", name=op.f("pk_cells")),
    )
    op.create_index(op.f("ix_cells_simulation_id_generation"), "cells", ["simulation_id", "generation"], unique=False)
    op.create_index(op.f("ix_cells_simulation_id_lineage"), "cells", ["simulation_id", "lineage"], unique=False)
    op.create_table(
        "dna_snapshots",
        sa.Column("snapshot_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("agent_id", sa.String(length=64), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.String(length=16), nullable=True),
        sa.Column("parent_snapshot_id", sa.BigInteger(), nullable=True),
        sa.Column("dna_size", sa.Integer(), nullable=True),
        sa.Column("traits_count", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_dna_snapshots_simulation_id")
        ),
        sa.PrimaryKeyConstraint("simulation_id", "snapshot_id", name=op.f("pk_dna_snapshots")),
    )
    op.create_index(
        op.f("ix_dna_snapshots_agent_id_simulation_id"), "dna_snapshots", ["agent_id", "simulation_id"], unique=False
    )
    op.create_table(
        "evolutionary_events",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("event_type", sa.String(length=32), nullable=True),
        sa.Column("cell_id", sa.BigInteger(), nullable=False),
        sa.Column("parent_id", sa.BigInteger(), nullable=True),
        sa.Column("mutation_magnitude", sa.Float(precision=53), nullable=True),
        sa.Column("fitness_delta", sa.Float(precision=53), nullable=True),
        sa.Column("generation_gap", sa.Integer(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_evolutionary_events_simulation_id")
        ),
        sa.PrimaryKeyConstraint("simulation_id", "id", name=op.f("pk_evolutionary_events")),
    )
    op.create_index(
        op.f("ix_evolutionary_events_cell_id_simulation_id"),
        "evolutionary_events",
        ["cell_id", "simulation_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_evolutionary_events_parent_id_simulation_id"),
        "evolutionary_events",
        ["parent_id", "simulation_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_evolutionary_events_simulation_id_timestamp"),
        "evolutionary_events",
        ["simulation_id", "timestamp"],
        unique=False,
    )
    op.create_table(
        "kernel_geometry",
        sa.Column("kernel_id", sa.String(length=64), nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("god_name", sa.String(length=64), nullable=True),
        sa.Column("domain", sa.String(length=128), nullable=True),
        sa.Column("primitive_root", sa.Integer(), nullable=True),
        sa.Column("basin_coordinates", tables.Vector(8), nullable=True),
        sa.Column("parent_kernels", tables.TextArray(), nullable=True),
        sa.Column("phi", sa.Float(precision=53), nullable=True),
        sa.Column("kappa", sa.Float(precision=53), nullable=True),
        sa.Column("regime", sa.String(length=32), nullable=True),
        sa.Column("generation", sa.Integer(), server_default=sa.text("0"), nullable=True),
        sa.Column("success_count", sa.Integer(), server_default=sa.text("0"), nullable=True),
        sa.Column("failure_count", sa.Integer(), server_default=sa.text("0"), nullable=True),
        sa.Column("element_group", sa.String(length=32), nullable=True),
        sa.Column("ecological_niche", sa.String(length=32), nullable=True),
        sa.Column("target_function", sa.String(length=64), nullable=True),
        sa.Column("valence", sa.Integer(), nullable=True),
        sa.Column("breeding_target", sa.String(length=64), nullable=True),
        sa.Column("spawned_at", sa.DateTime(), server_default=sa.text("CURRENT_TIMESTAMP"), nullable=True),
        sa.Column("training_steps", sa.BigInteger(), nullable=True),
        sa.Column("timestamp", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_kernel_geometry_simulation_id")
        ),
        sa.PrimaryKeyConstraint("kernel_id", "simulation_id", name=op.f("pk_kernel_geometry")),
    )
    op.create_index(
        op.f("ix_kernel_geometry_simulation_id_phi"), "kernel_geometry", ["simulation_id", "phi"], unique=False
    )
    op.create_table(
        "problem_results",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("cell_id", sa.BigInteger(), nullable=False),
        sa.Column("problem_type", sa.String(length=50), nullable=True),
        sa.Column("difficulty", sa.String(length=20), nullable=True),
        sa.Column("solved", sa.Boolean(), nullable=True),
        sa.Column("accuracy", sa.Float(precision=53), nullable=True),
        sa.Column("energy_reward", sa.Float(precision=53), nullable=True),
        sa.Column("processing_time", sa.Float(precision=53), nullable=True),
        sa.Column("tpu_utilization", sa.Float(precision=53), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_problem_results_simulation_id")
        ),
        sa.PrimaryKeyConstraint("simulation_id", "id", name=op.f("pk_problem_results")),
    )
    op.create_index(
        op.f("ix_problem_results_cell_id_simulation_id"), "problem_results", ["cell_id", "simulation_id"], unique=False
    )
    op.create_index(
        op.f("ix_problem_results_simulation_id_timestamp"),
        "problem_results",
        ["simulation_id", "timestamp"],
        unique=False,
    )
    op.create_table(
        "dna_mutations",
        sa.Column("snapshot_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("agent_id", sa.String(length=64), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("parent_snapshot_id", sa.BigInteger(), nullable=True),
        sa.Column("mutation_keys", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("traits_delta", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(
            ["snapshot_id", "simulation_id"],
            ["dna_snapshots.snapshot_id", "dna_snapshots.simulation_id"],
            name=op.f("fk_dna_mutations_snapshot_id_simulation_id"),
        ),
        sa.PrimaryKeyConstraint("simulation_id", "snapshot_id", name=op.f("pk_dna_mutations")),
    )
    op.create_index(
        op.f("ix_dna_mutations_agent_id_simulation_id"), "dna_mutations", ["agent_id", "simulation_id"], unique=False
    )
    op.create_table(
        "karma_scores",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("agent_id", sa.String(length=64), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("karma_score", sa.Float(precision=53), nullable=True),
        sa.Column("previous_score", sa.Float(precision=53), nullable=True),
        sa.Column("score_delta", sa.Float(precision=53), nullable=True),
        sa.Column("updated_at", sa.Float(precision=53), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["snapshot_id", "simulation_id"],
            ["dna_snapshots.snapshot_id", "dna_snapshots.simulation_id"],
            name=op.f("fk_karma_scores_snapshot_id_simulation_id"),
        ),
        sa.PrimaryKeyConstraint("simulation_id", "id", name=op.f("pk_karma_scores")),
    )
    op.create_index(
        op.f("ix_karma_scores_agent_id_simulation_id"), "karma_scores", ["agent_id", "simulation_id"], unique=False
    )
    op.create_index(
        op.f("ix_karma_scores_simulation_id_karma_score"),
        "karma_scores",
        ["simulation_id", "karma_score"],
        unique=False,
    )
    op.create_table(
        "war_history",
        sa.Column("war_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.String(length=32), nullable=True),
        sa.Column("attacker_id", sa.String(length=64), nullable=False),
        sa.Column("defender_id", sa.String(length=64), nullable=False),
        sa.Column("winner_id", sa.String(length=64), nullable=True),
        sa.Column("attacker_phi", sa.Float(precision=53), nullable=True),
        sa.Column("defender_phi", sa.Float(precision=53), nullable=True),
        sa.Column("phi_delta", sa.Float(precision=53), nullable=True),
        sa.Column("rounds", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(
            ["attacker_id", "simulation_id"],
            ["kernel_geometry.kernel_id", "kernel_geometry.simulation_id"],
            name=op.f("fk_war_history_attacker_id_simulation_id"),
        ),
        sa.ForeignKeyConstraint(
            ["defender_id", "simulation_id"],
            ["kernel_geometry.kernel_id", "kernel_geometry.simulation_id"],
            name=op.f("fk_war_history_defender_id_simulation_id"),
        ),
        sa.ForeignKeyConstraint(
            ["winner_id", "simulation_id"],
            ["kernel_geometry.kernel_id", "kernel_geometry.simulation_id"],
            name=op.f("fk_war_history_winner_id_simulation_id"),
        ),
        sa.PrimaryKeyConstraint("simulation_id", "war_id", name=op.f("pk_war_history")),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.create_index(
            "ix_kernel_geometry_basin",
            "kernel_geometry",
            ["basin_coordinates"],
            postgresql_using="hnsw",
            postgresql_ops={"basin_coordinates": "vector_cosine_ops"},
        )
