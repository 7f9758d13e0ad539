"""What discovery has seen, what it could not tell, and where devices belong."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "sightings",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("device", sa.String(16), nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("sighting", sa.JSON(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_sightings"),
        sa.UniqueConstraint("key", name="uq_sightings_key"),
    )
    for column in ("device", "network", "last"):
        op.create_index(f"ix_sightings_{column}", "sightings", [column])
    op.create_table(
        "sighting_identities",
        sa.Column("sighting", _NUMBER, nullable=False),
        sa.Column("identity", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(
            ["sighting"], ["sightings.number"], name="fk_sighting_identities_sighting", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sighting", "identity", name="pk_sighting_identities"),
    )
    op.create_index("ix_sighting_identities_identity", "sighting_identities", ["identity"])
    op.create_table(
        "inventory_conflicts",
        sa.Column("identity", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("value", sa.String(255), nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("identity", name="pk_inventory_conflicts"),
    )
    op.create_table(
        "placement_rules",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("pattern", sa.String(512), nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("group_path", sa.String(512), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_path"], ["groups.path"], name="fk_placement_rules_group_path", onupdate="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name="pk_placement_rules"),
    )
    op.create_index("ix_placement_rules_group_path", "placement_rules", ["group_path"])


def downgrade() -> None:
    """Take the tables away again."""
    for table in ("placement_rules", "inventory_conflicts", "sighting_identities", "sightings"):
        op.drop_table(table)
