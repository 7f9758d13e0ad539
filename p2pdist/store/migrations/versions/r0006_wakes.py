"""Where devices listen for wakes while they rest, and what they knew when they began to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0006"
down_revision = "0005"

_BYTES = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
_TABLE = "wake_places"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        _TABLE,
        sa.Column("node", sa.String(32), nullable=False),
        sa.Column("place", sa.JSON(), nullable=False),
        sa.Column("via", sa.String(32), nullable=False, server_default=""),
        sa.Column("knows", _BYTES, nullable=False),
        sa.Column("ways", sa.JSON(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["node"], ["devices.node"], name="fk_wake_places_node_devices", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("node", name="pk_wake_places"),
    )


def downgrade() -> None:
    """Take the table away again."""
    op.drop_table(_TABLE)
