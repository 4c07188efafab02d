"""Configurations of any length: one with many planted anomalies has more than 4,096 characters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the column of the configuration to text of any length."""
    with op.batch_alter_table("simulation_config") as batch:
        batch.alter_column(
            "config_data", existing_type=sa.String(length=4096), type_=sa.Text(), existing_nullable=True
        )
