"""Which try of a deployment a device speaks of, and which one an operator asks for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TABLE = "device_deployments"
_INDEX = "ix_device_deployments_retry_wanted"


def upgrade() -> None:
    """Add the columns; what is there is of the first try, and no other was asked for."""
    for name in ("retry", "retry_wanted"):
        op.add_column(_TABLE, sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.create_index(_INDEX, _TABLE, ["retry_wanted"])


def downgrade() -> None:
    """Take the columns away again."""
    op.drop_index(_INDEX, _TABLE)
    for name in ("retry", "retry_wanted"):
        op.drop_column(_TABLE, name)
