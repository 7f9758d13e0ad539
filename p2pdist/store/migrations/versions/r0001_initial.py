"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None

_BYTES = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
_EMPTY = sa.text("('')")


def upgrade() -> None:
    """Make every table, and the root group."""
    _api_tokens()
    _artifacts()
    _audit()
    _certificates()
    _content_reports()
    _content_sources()
    _counters()
    _groups()
    _refusals()
    _deployments()
    _devices()
    _enrolment_tokens()
    _clone_sightings()
    _device_deployments()
    _replay_windows()
    table = sa.table("groups", sa.column("path", sa.String), sa.column("created", sa.BigInteger))
    op.bulk_insert(table, [{"path": "/", "created": 0}])


def downgrade() -> None:
    """Going back would lose the fleet's state; restore a backup instead."""
    raise NotImplementedError("restore the backup that was made before the upgrade")


def _api_tokens() -> None:
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_tokens_hash")),
    )


def _artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("info_hash", sa.String(length=64), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("modified_ns", sa.BigInteger(), nullable=False),
        sa.Column("published", sa.Boolean(), nullable=False),
        sa.Column("damage", sa.Text(), server_default=_EMPTY, nullable=False),
        sa.Column("stored", sa.BigInteger(), nullable=False),
        sa.Column("sent_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("info_hash", name=op.f("pk_artifacts")),
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column(
            "number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), server_default=_EMPTY, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_at"), "audit", ["at"], unique=False)


def _certificates() -> None:
    op.create_table(
        "certificates",
        sa.Column("serial", sa.String(length=64), nullable=False),
        sa.Column("node", sa.String(length=32), nullable=False),
        sa.Column("issued", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_certificates")),
    )
    op.create_index(op.f("ix_certificates_expires"), "certificates", ["expires"], unique=False)
    op.create_index(op.f("ix_certificates_node"), "certificates", ["node"], unique=False)


def _content_reports() -> None:
    op.create_table(
        "content_reports",
        sa.Column("node", sa.String(length=32), nullable=False),
        sa.Column("info_hash", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=400), nullable=False),
        sa.Column("receiver_role", sa.String(length=16), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("unattributed", sa.BigInteger(), nullable=False),
        sa.Column("wasted", sa.BigInteger(), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node", "info_hash", name=op.f("pk_content_reports")),
    )


def _content_sources() -> None:
    op.create_table(
        "content_sources",
        sa.Column("node", sa.String(length=32), nullable=False),
        sa.Column("info_hash", sa.String(length=64), nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("receiver_role", sa.String(length=16), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("sent", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node", "info_hash", "source", name=op.f("pk_content_sources")),
    )


def _counters() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )


def _groups() -> None:
    op.create_table(
        "groups",
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_groups")),
    )


def _refusals() -> None:
    op.create_table(
        "refusals",
        sa.Column(
            "number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("node", sa.String(length=32), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("times", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_refusals")),
    )
    op.create_index("ix_refusals_node_id", "refusals", ["node", "id"], unique=True)


def _deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column(
            "number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=400), nullable=False),
        sa.Column("group_path", sa.String(length=512), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("stopped", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["group_path"], ["groups.path"], name=op.f("fk_deployments_group_path"), onupdate="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_deployments")),
        sa.UniqueConstraint("id", name=op.f("uq_deployments_id")),
    )
    op.create_index(op.f("ix_deployments_group_path"), "deployments", ["group_path"], unique=False)


def _devices() -> None:
    op.create_table(
        "devices",
        sa.Column("node", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("platform", sa.String(length=64), nullable=False),
        sa.Column("group_path", sa.String(length=512), nullable=False),
        sa.Column("public", _BYTES, nullable=False),
        sa.Column("machine", sa.String(length=128), nullable=False),
        sa.Column("enrolled", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=True),
        sa.Column("via", sa.String(length=32), server_default="", nullable=False),
        sa.Column("program", sa.String(length=64), server_default="", nullable=False),
        sa.Column("revision_known", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("certificate_expires", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("disk_free_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("metadata_versions", sa.JSON(), nullable=False),
        sa.Column("swarms", sa.JSON(), nullable=False),
        sa.Column("installed", sa.JSON(), nullable=False),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.Column("revoked_reason", sa.Text(), server_default=_EMPTY, nullable=False),
        sa.Column("clones", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["group_path"], ["groups.path"], name=op.f("fk_devices_group_path"), onupdate="CASCADE"
        ),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_devices")),
    )
    op.create_index(op.f("ix_devices_group_path"), "devices", ["group_path"], unique=False)
    op.create_index(op.f("ix_devices_name"), "devices", ["name"], unique=False)


def _enrolment_tokens() -> None:
    op.create_table(
        "enrolment_tokens",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("group_path", sa.String(length=512), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("note", sa.Text(), server_default=_EMPTY, nullable=False),
        sa.ForeignKeyConstraint(
            ["group_path"], ["groups.path"], name=op.f("fk_enrolment_tokens_group_path"), onupdate="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_enrolment_tokens_hash")),
    )
    op.create_index(op.f("ix_enrolment_tokens_group_path"), "enrolment_tokens", ["group_path"], unique=False)


def _clone_sightings() -> None:
    op.create_table(
        "clone_sightings",
        sa.Column(
            "number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("node", sa.String(length=32), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["node"], ["devices.node"], name=op.f("fk_clone_sightings_node"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_clone_sightings")),
    )
    op.create_index(op.f("ix_clone_sightings_node"), "clone_sightings", ["node"], unique=False)


def _device_deployments() -> None:
    op.create_table(
        "device_deployments",
        sa.Column("deployment", sa.String(length=64), nullable=False),
        sa.Column("node", sa.String(length=32), nullable=False),
        sa.Column("target", sa.String(length=400), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("fraction", sa.Double(), nullable=False),
        sa.Column("rate_bytes_per_s", sa.BigInteger(), nullable=False),
        sa.Column("sources", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("output", _BYTES, nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("report", sa.String(length=64), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("finished", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["deployment"],
            ["deployments.id"],
            name=op.f("fk_device_deployments_deployment"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["node"], ["devices.node"], name=op.f("fk_device_deployments_node"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("deployment", "node", name=op.f("pk_device_deployments")),
    )
    op.create_index("ix_device_deployments_node", "device_deployments", ["node"], unique=False)


def _replay_windows() -> None:
    op.create_table(
        "replay_windows",
        sa.Column("node", sa.String(length=32), nullable=False),
        sa.Column("window", _BYTES, nullable=False),
        sa.ForeignKeyConstraint(
            ["node"], ["devices.node"], name=op.f("fk_replay_windows_node"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("node", name=op.f("pk_replay_windows")),
    )
