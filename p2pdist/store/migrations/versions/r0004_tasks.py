"""What nodes are given to do: tasks, their runs on each node, and what came of each thing they were about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0004"
down_revision = "0003"

_BYTES = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
_EMPTY = sa.text("('')")
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _task() -> sa.Column[str]:
    return sa.Column("task", sa.String(64), nullable=False)


def _foreign(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["task"], ["tasks.id"], name=f"fk_{table}_task", ondelete="CASCADE")


def upgrade() -> None:
    """Add the tables; nothing is in them."""
    op.create_table(
        "tasks",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("work", _BYTES, nullable=False),
        sa.Column("nodes", sa.JSON(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("window_s", sa.Integer(), nullable=False),
        sa.Column("spread_s", sa.Integer(), nullable=False),
        sa.Column("schedule", sa.String(128), nullable=False, server_default=""),
        sa.Column("zone", sa.String(64), nullable=False, server_default=""),
        sa.Column("next_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("number", name="pk_tasks"),
        sa.UniqueConstraint("id", name="uq_tasks_id"),
    )
    op.create_index("ix_tasks_next_at", "tasks", ["next_at"])
    op.create_table(
        "task_runs",
        _task(),
        sa.Column("run", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node", sa.String(32), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.Text(), nullable=False, server_default=_EMPTY),
        sa.Column("done", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("total", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("rate_bytes_per_s", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("reason", sa.Text(), nullable=False, server_default=_EMPTY),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("report", sa.String(64), nullable=False, server_default=""),
        sa.Column("seconds", sa.Double(), nullable=False, server_default="0"),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("finished", sa.BigInteger()),
        sa.PrimaryKeyConstraint("task", "run", "node", name="pk_task_runs"),
        _foreign("task_runs"),
    )
    op.create_index("ix_task_runs_state", "task_runs", ["state"])
    op.create_table(
        "task_items",
        _task(),
        sa.Column("run", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task", "run", "node", "subject", name="pk_task_items"),
        _foreign("task_items"),
    )


def downgrade() -> None:
    """Take the tables away again."""
    for table in ("task_items", "task_runs", "tasks"):
        op.drop_table(table)
