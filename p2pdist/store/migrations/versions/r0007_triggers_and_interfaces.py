"""What else begins a task than an operator and a schedule; and the interfaces of enrolled devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_TABLE = "tasks"
_INDEX = "ix_tasks_after"
_INTERFACES = "device_interfaces"


def upgrade() -> None:
    """Add the columns and the table; what is there waits for nothing new, and has said nothing yet."""
    op.add_column(_TABLE, sa.Column("after", sa.String(64), nullable=False, server_default=""))
    op.add_column(_TABLE, sa.Column("after_run", sa.Integer(), nullable=False, server_default="0"))
    op.add_column(_TABLE, sa.Column("on_metadata", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column(_TABLE, sa.Column("metadata_seen", sa.JSON(), nullable=True))
    op.create_index(_INDEX, _TABLE, ["after"])
    op.create_table(
        _INTERFACES,
        sa.Column("node", sa.String(32), nullable=False),
        sa.Column("mac", sa.String(17), nullable=False),
        sa.Column("addresses", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["node"], ["devices.node"], name="fk_device_interfaces_node", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("node", "mac", name="pk_device_interfaces"),
    )
    op.create_index("ix_device_interfaces_mac", _INTERFACES, ["mac"])


def downgrade() -> None:
    """Take them away again."""
    op.drop_table(_INTERFACES)
    op.drop_index(_INDEX, _TABLE)
    for name in ("after", "after_run", "on_metadata", "metadata_seen"):
        op.drop_column(_TABLE, name)
