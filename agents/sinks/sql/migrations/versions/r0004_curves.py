"""Curves and history: the population, spikes, results of windows, and all states of kernels; deaths of cells."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from astrocyte.schemas import tables

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, and add the columns of deaths, generations, ages and sizes."""
    with op.batch_alter_table("cells") as batch:
        batch.add_column(sa.Column("died_at", sa.BigInteger(), nullable=True))
        batch.alter_column(
            "timestamp", existing_type=sa.BigInteger(), existing_nullable=False, server_default=sa.text("0")
        )
    op.add_column("evolutionary_events", sa.Column("generation", sa.Integer(), nullable=True))
    op.add_column("evolutionary_events", sa.Column("age_ticks", sa.Integer(), nullable=True))
    op.add_column("dna_mutations", sa.Column("dna_size", sa.Integer(), nullable=True))
    op.add_column("dna_mutations", sa.Column("traits_count", sa.Integer(), nullable=True))
    op.create_table(
        "population_metrics",
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("tick", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("total_population", sa.BigInteger(), nullable=True),
        sa.Column("avg_accuracy", sa.Float(precision=53), nullable=True),
        sa.Column("genome_diversity", sa.Float(precision=53), nullable=True),
        sa.Column("avg_generation", sa.Float(precision=53), nullable=True),
        sa.Column("energy_efficiency", sa.Float(precision=53), nullable=True),
        sa.Column("births", sa.BigInteger(), nullable=True),
        sa.Column("deaths", sa.BigInteger(), nullable=True),
        sa.Column("avg_energy", sa.Float(precision=53), nullable=True),
        _of_simulation("population_metrics"),
        sa.PrimaryKeyConstraint("simulation_id", "tick", name=op.f("pk_population_metrics")),
    )
    _index("population_metrics", "simulation_id", "timestamp")
    op.create_table(
        "spikes",
        sa.Column("axon", sa.String(length=32), nullable=False),
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("domain", sa.String(length=256), nullable=True),
        sa.Column("type", sa.String(length=64), nullable=True),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        _of_simulation("spikes"),
        sa.PrimaryKeyConstraint("simulation_id", "axon", "id", name=op.f("pk_spikes")),
    )
    _index("spikes", "simulation_id", "timestamp")
    op.create_table(
        "window_results",
        sa.Column("window_name", sa.String(length=128), nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("event_key", sa.String(length=256), nullable=False),
        sa.Column("field", sa.String(length=128), nullable=False),
        sa.Column("window_end", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("window_start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("result_id", sa.String(length=64), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        _of_simulation("window_results"),
        sa.PrimaryKeyConstraint(
            "simulation_id", "window_name", "field", "event_key", "window_end", "window_start",
            name=op.f("pk_window_results"),
        ),
    )  # fmt: skip
    _index("window_results", "result_id")
    op.create_table(
        "kernel_history",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("kernel_id", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=True),
        sa.Column("basin_coordinates", tables.Vector(8), nullable=True),
        sa.Column("phi", sa.Float(precision=53), nullable=True),
        sa.Column("kappa", sa.Float(precision=53), nullable=True),
        sa.Column("regime", sa.String(length=32), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.Column("success_count", sa.Integer(), nullable=True),
        sa.Column("failure_count", sa.Integer(), nullable=True),
        sa.Column("ecological_niche", sa.String(length=32), nullable=True),
        sa.Column("breeding_target", sa.String(length=64), nullable=True),
        sa.Column("training_steps", sa.BigInteger(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        _of_simulation("kernel_history"),
        sa.PrimaryKeyConstraint("simulation_id", "id", name=op.f("pk_kernel_history")),
    )
    _index("kernel_history", "simulation_id", "kernel_id", "timestamp")


def _of_simulation(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["simulation_id"], ["simulations.simulation_id"], name=op.f(f"fk_{table}_simulation_id")
    )


def _index(table: str, *columns: str) -> None:
    op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns), unique=False)
