"""Experiments, the configuration of simulations, and the tables of the ``ecology`` scenario."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of experiments and of the ``ecology`` scenario, and add ``simulations.experiment_id``."""
    op.create_table(
        "experiments",
        sa.Column("experiment_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("hypothesis", sa.Text(), nullable=True),
        sa.Column("creation_date", sa.DateTime(), nullable=True),
        sa.Column("last_updated", sa.DateTime(), nullable=True),
        sa.Column("status", sa.String(length=50), nullable=True),
        sa.Column("tags", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("variables", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("results_summary", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("experiment_id", name=op.f("pk_experiments")),
    )
    with op.batch_alter_table("simulations") as batch:
        batch.add_column(sa.Column("experiment_id", sa.String(length=64), nullable=True))
        batch.create_foreign_key("fk_simulations_experiment_id", "experiments", ["experiment_id"], ["experiment_id"])
    op.create_index("ix_simulations_experiment_id", "simulations", ["experiment_id"])
    op.create_table(
        "agents",
        sa.Column("agent_id", sa.String(length=64), nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("birth_time", sa.BigInteger(), nullable=True),
        sa.Column("death_time", sa.BigInteger(), nullable=True),
        sa.Column("agent_type", sa.String(length=50), nullable=True),
        sa.Column("position_x", sa.Float(precision=53), nullable=True),
        sa.Column("position_y", sa.Float(precision=53), nullable=True),
        sa.Column("initial_resources", sa.Float(precision=53), nullable=True),
        sa.Column("starting_health", sa.Float(precision=53), nullable=True),
        sa.Column("starvation_threshold", sa.Integer(), nullable=True),
        sa.Column("genome_id", sa.String(length=64), nullable=True),
        sa.Column("parent_id", sa.String(length=64), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_agents_simulation_id")),
        sa.PrimaryKeyConstraint("agent_id", "simulation_id", name=op.f("pk_agents")),
    )
    op.create_index(op.f("ix_agents_simulation_id_agent_type"), "agents", ["simulation_id", "agent_type"], unique=False)
    op.create_index(op.f("ix_agents_simulation_id_birth_time"), "agents", ["simulation_id", "birth_time"], unique=False)
    op.create_index(op.f("ix_agents_simulation_id_death_time"), "agents", ["simulation_id", "death_time"], unique=False)
    op.create_index(op.f("ix_agents_simulation_id_parent_id"), "agents", ["simulation_id", "parent_id"], unique=False)
    op.create_table(
        "resource_states",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("step_number", sa.BigInteger(), nullable=False),
        sa.Column("resource_id", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.Float(precision=53), nullable=True),
        sa.Column("position_x", sa.Float(precision=53), nullable=True),
        sa.Column("position_y", sa.Float(precision=53), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_resource_states_simulation_id")
        ),
        sa.PrimaryKeyConstraint("id", "simulation_id", name=op.f("pk_resource_states")),
    )
    op.create_index(
        op.f("ix_resource_states_simulation_id_resource_id"),
        "resource_states",
        ["simulation_id", "resource_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_resource_states_simulation_id_step_number"),
        "resource_states",
        ["simulation_id", "step_number"],
        unique=False,
    )
    op.create_table(
        "simulation_config",
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("config_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=True),
        sa.Column("config_data", sa.String(length=4096), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_simulation_config_simulation_id")
        ),
        sa.PrimaryKeyConstraint("simulation_id", "config_id", name=op.f("pk_simulation_config")),
    )
    op.create_table(
        "simulation_steps",
        sa.Column("step_number", sa.BigInteger(), nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("total_agents", sa.BigInteger(), nullable=True),
        sa.Column("system_agents", sa.BigInteger(), nullable=True),
        sa.Column("independent_agents", sa.BigInteger(), nullable=True),
        sa.Column("control_agents", sa.BigInteger(), nullable=True),
        sa.Column("total_resources", sa.Float(precision=53), nullable=True),
        sa.Column("average_agent_resources", sa.Float(precision=53), nullable=True),
        sa.Column("births", sa.BigInteger(), nullable=True),
        sa.Column("deaths", sa.BigInteger(), nullable=True),
        sa.Column("current_max_generation", sa.BigInteger(), nullable=True),
        sa.Column("resource_efficiency", sa.Float(precision=53), nullable=True),
        sa.Column("resource_distribution_entropy", sa.Float(precision=53), nullable=True),
        sa.Column("average_agent_health", sa.Float(precision=53), nullable=True),
        sa.Column("average_agent_age", sa.BigInteger(), nullable=True),
        sa.Column("average_reward", sa.Float(precision=53), nullable=True),
        sa.Column("combat_encounters", sa.BigInteger(), nullable=True),
        sa.Column("successful_attacks", sa.BigInteger(), nullable=True),
        sa.Column("resources_shared", sa.Float(precision=53), nullable=True),
        sa.Column("genetic_diversity", sa.Float(precision=53), nullable=True),
        sa.Column("dominant_genome_ratio", sa.Float(precision=53), nullable=True),
        sa.Column("resources_consumed", sa.Float(precision=53), nullable=True),
        sa.ForeignKeyConstraint(
            ["simulation_id"], ["simulations.simulation_id"], name=op.f("fk_simulation_steps_simulation_id")
        ),
        sa.PrimaryKeyConstraint("simulation_id", "step_number", name=op.f("pk_simulation_steps")),
    )
    op.create_table(
        "agent_states",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("step_number", sa.BigInteger(), nullable=False),
        sa.Column("agent_id", sa.String(length=64), nullable=False),
        sa.Column("position_x", sa.Float(precision=53), nullable=True),
        sa.Column("position_y", sa.Float(precision=53), nullable=True),
        sa.Column("position_z", sa.Float(precision=53), nullable=True),
        sa.Column("resource_level", sa.Float(precision=53), nullable=True),
        sa.Column("current_health", sa.Float(precision=53), nullable=True),
        sa.Column("is_defending", sa.Boolean(), nullable=True),
        sa.Column("total_reward", sa.Float(precision=53), nullable=True),
        sa.Column("age", sa.Integer(), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["agent_id", "simulation_id"],
            ["agents.agent_id", "agents.simulation_id"],
            name=op.f("fk_agent_states_agent_id_simulation_id"),
        ),
        sa.PrimaryKeyConstraint("id", "simulation_id", name=op.f("pk_agent_states")),
    )
    op.create_index(
        op.f("ix_agent_states_agent_id_simulation_id_step_number"),
        "agent_states",
        ["agent_id", "simulation_id", "step_number"],
        unique=False,
    )
    op.create_index(
        op.f("ix_agent_states_simulation_id_step_number"),
        "agent_states",
        ["simulation_id", "step_number"],
        unique=False,
    )
    op.create_table(
        "health_incidents",
        sa.Column("incident_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("step_number", sa.BigInteger(), nullable=True),
        sa.Column("agent_id", sa.String(length=64), nullable=False),
        sa.Column("health_before", sa.Float(precision=53), nullable=True),
        sa.Column("health_after", sa.Float(precision=53), nullable=True),
        sa.Column("cause", sa.String(length=50), nullable=True),
        sa.Column("details", sa.String(length=512), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["agent_id", "simulation_id"],
            ["agents.agent_id", "agents.simulation_id"],
            name=op.f("fk_health_incidents_agent_id_simulation_id"),
        ),
        sa.PrimaryKeyConstraint("incident_id", "simulation_id", name=op.f("pk_health_incidents")),
    )
    op.create_index(
        op.f("ix_health_incidents_agent_id_simulation_id_step_number"),
        "health_incidents",
        ["agent_id", "simulation_id", "step_number"],
        unique=False,
    )
    op.create_index(
        op.f("ix_health_incidents_simulation_id_step_number"),
        "health_incidents",
        ["simulation_id", "step_number"],
        unique=False,
    )
    op.create_table(
        "learning_experiences",
        sa.Column("experience_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("step_number", sa.BigInteger(), nullable=True),
        sa.Column("agent_id", sa.String(length=64), nullable=False),
        sa.Column("module_type", sa.String(length=50), nullable=True),
        sa.Column("module_id", sa.String(length=64), nullable=True),
        sa.Column("action_taken", sa.Integer(), nullable=True),
        sa.Column("action_taken_mapped", sa.String(length=20), nullable=True),
        sa.Column("reward", sa.Float(precision=53), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["agent_id", "simulation_id"],
            ["agents.agent_id", "agents.simulation_id"],
            name=op.f("fk_learning_experiences_agent_id_simulation_id"),
        ),
        sa.PrimaryKeyConstraint("experience_id", "simulation_id", name=op.f("pk_learning_experiences")),
    )
    op.create_index(
        op.f("ix_learning_experiences_agent_id_simulation_id_step_number"),
        "learning_experiences",
        ["agent_id", "simulation_id", "step_number"],
        unique=False,
    )
    op.create_index(
        op.f("ix_learning_experiences_simulation_id_module_type"),
        "learning_experiences",
        ["simulation_id", "module_type"],
        unique=False,
    )
    op.create_index(
        op.f("ix_learning_experiences_simulation_id_step_number"),
        "learning_experiences",
        ["simulation_id", "step_number"],
        unique=False,
    )
    op.create_table(
        "agent_actions",
        sa.Column("action_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("simulation_id", sa.String(length=64), nullable=False),
        sa.Column("step_number", sa.BigInteger(), nullable=True),
        sa.Column("agent_id", sa.String(length=64), nullable=False),
        sa.Column("action_type", sa.String(length=20), nullable=True),
        sa.Column("action_target_id", sa.String(length=64), nullable=True),
        sa.Column("state_before_id", sa.String(length=128), nullable=True),
        sa.Column("state_after_id", sa.String(length=128), nullable=True),
        sa.Column("resources_before", sa.Float(precision=53), nullable=True),
        sa.Column("resources_after", sa.Float(precision=53), nullable=True),
        sa.Column("reward", sa.Float(precision=53), nullable=True),
        sa.Column("details", sa.String(length=1024), nullable=True),
        sa.Column("recorded_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["action_target_id", "simulation_id"],
            ["agents.agent_id", "agents.simulation_id"],
            name=op.f("fk_agent_actions_action_target_id_simulation_id"),
        ),
        sa.ForeignKeyConstraint(
            ["agent_id", "simulation_id"],
            ["agents.agent_id", "agents.simulation_id"],
            name=op.f("fk_agent_actions_agent_id_simulation_id"),
        ),
        sa.ForeignKeyConstraint(
            ["state_after_id", "simulation_id"],
            ["agent_states.id", "agent_states.simulation_id"],
            name=op.f("fk_agent_actions_state_after_id_simulation_id"),
        ),
        sa.ForeignKeyConstraint(
            ["state_before_id", "simulation_id"],
            ["agent_states.id", "agent_states.simulation_id"],
            name=op.f("fk_agent_actions_state_before_id_simulation_id"),
        ),
        sa.PrimaryKeyConstraint("action_id", "simulation_id", name=op.f("pk_agent_actions")),
    )
    op.create_index(
        op.f("ix_agent_actions_agent_id_simulation_id_step_number"),
        "agent_actions",
        ["agent_id", "simulation_id", "step_number"],
        unique=False,
    )
    for column in ("state_before_id", "state_after_id"):
        op.create_index(
            f"ix_agent_actions_{column}_simulation_id",
            "agent_actions",
            [column, "simulation_id"],
            sqlite_where=sa.text(f"{column} IS NOT NULL"),
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )
    op.create_index(
        op.f("ix_agent_actions_simulation_id_action_type"),
        "agent_actions",
        ["simulation_id", "action_type"],
        unique=False,
    )
    op.create_index(
        op.f("ix_agent_actions_simulation_id_step_number"),
        "agent_actions",
        ["simulation_id", "step_number"],
        unique=False,
    )
