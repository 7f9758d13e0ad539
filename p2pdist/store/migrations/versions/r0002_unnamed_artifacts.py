"""Since when no signed release has named an artifact."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; what is there counts as named until the server has looked."""
    op.add_column("artifacts", sa.Column("unnamed_since", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Take the column away again."""
    op.drop_column("artifacts", "unnamed_since")
