"""What else begins a task than an operator and a schedule: the end of another one, and new metadata."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_TABLE = "tasks"
_INDEX = "ix_tasks_after"


def upgrade() -> None:
    """Add the columns; what is there waits for neither."""
    op.add_column(_TABLE, sa.Column("after", sa.String(64), nullable=False, server_default=""))
    op.add_column(_TABLE, sa.Column("after_run", sa.Integer(), nullable=False, server_default="0"))
    op.add_column(_TABLE, sa.Column("on_metadata", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column(_TABLE, sa.Column("metadata_seen", sa.JSON(), nullable=True))
    op.create_index(_INDEX, _TABLE, ["after"])


def downgrade() -> None:
    """Take the columns away again."""
    op.drop_index(_INDEX, _TABLE)
    for name in ("after", "after_run", "on_metadata", "metadata_seen"):
        op.drop_column(_TABLE, name)
