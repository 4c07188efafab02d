"""Results of windows are indexed by their end: an index of random ids cost more to fill than the table."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the index."""
    op.drop_index(op.f("ix_window_results_result_id"), table_name="window_results")
    op.create_index(op.f("ix_window_results_window_end"), "window_results", ["window_end"], unique=False)
