"""Whether a match and its alert are final, provisional, confirmed or retracted; of older rows it is unknown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column to both tables."""
    for table in ("multi_events", "alerts"):
        op.add_column(table, sa.Column("status", sa.String(length=16), nullable=True))
