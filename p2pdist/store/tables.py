"""The schema. A change here needs a revision in ``migrations/versions``; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects import mysql

from p2pdist import limits

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_NODE = String(32)
_INFO_HASH = String(64)
_GROUP = String(limits.GROUP_PATH_CHARS_MAX)
_TARGET = String(limits.TARGET_PATH_CHARS_MAX)
_ID = String(64)
_BYTES = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")  # whose BLOB ends at 64 KiB
_DOUBLE: Double[float] = Double()  # as many bits as Python's
_EMPTY = text("('')")  # MySQL takes no default of a text but an expression
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only in INTEGER keys


def _group_column(name: str = "group_path") -> Column[str]:
    """A reference to a group, which follows when the group is moved."""
    return Column(name, _GROUP, ForeignKey("groups.path", onupdate="CASCADE"), nullable=False, index=True)


groups = Table(
    "groups",
    metadata,
    Column("path", _GROUP, primary_key=True),
    Column("created", BigInteger, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("node", _NODE, primary_key=True),
    Column("name", String(255), nullable=False, index=True),
    Column("platform", String(64), nullable=False),
    _group_column(),
    Column("public", _BYTES, nullable=False),
    Column("machine", String(128), nullable=False),
    Column("enrolled", BigInteger, nullable=False),
    Column("last_seen", BigInteger),
    Column("via", _NODE, nullable=False, server_default=""),
    Column("program", String(64), nullable=False, server_default=""),
    Column("revision_known", BigInteger, nullable=False, server_default="0"),
    Column("certificate_expires", BigInteger, nullable=False, server_default="0"),
    Column("disk_free_bytes", BigInteger, nullable=False, server_default="0"),
    Column("metadata_versions", JSON, nullable=False),
    Column("swarms", JSON, nullable=False),
    Column("installed", JSON, nullable=False),
    Column("revoked", BigInteger),
    Column("revoked_reason", Text, nullable=False, server_default=_EMPTY),
    Column("clones", Integer, nullable=False, server_default="0"),
)

device_interfaces = Table(
    "device_interfaces",
    metadata,
    Column("node", _NODE, ForeignKey("devices.node", ondelete="CASCADE"), primary_key=True, nullable=False),
    Column("mac", String(17), primary_key=True, nullable=False, index=True),
    Column("addresses", JSON, nullable=False),
)

clone_sightings = Table(
    "clone_sightings",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("node", _NODE, ForeignKey("devices.node", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", BigInteger, nullable=False),
    Column("host", String(255), nullable=False),
    Column("reason", Text, nullable=False),
)

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    _group_column(),
    Column("uses", Integer, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("note", Text, nullable=False, server_default=_EMPTY),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(64), primary_key=True),
    Column("node", _NODE, nullable=False, index=True),
    Column("issued", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False, index=True),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("expires", BigInteger),
    Column("created", BigInteger, nullable=False),
)

deployments = Table(
    "deployments",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", _ID, nullable=False, unique=True),
    Column("target", _TARGET, nullable=False),
    _group_column(),
    Column("created", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("stopped", BigInteger),
)

device_deployments = Table(
    "device_deployments",
    metadata,
    Column(
        "deployment", _ID, ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True, nullable=False
    ),
    Column("node", _NODE, ForeignKey("devices.node", ondelete="CASCADE"), primary_key=True, nullable=False),
    Column("target", _TARGET, nullable=False),
    Column("stage", String(16), nullable=False),
    Column("fraction", _DOUBLE, nullable=False),
    Column("rate_bytes_per_s", BigInteger, nullable=False),
    Column("sources", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("exit_code", Integer),
    Column("output", _BYTES, nullable=False),
    Column("seconds", _DOUBLE, nullable=False),
    Column("report", _ID, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("finished", BigInteger),
    Column("retry", Integer, nullable=False, server_default="0"),
    Column("retry_wanted", Integer, nullable=False, server_default="0"),
    Index("ix_device_deployments_node", "node"),
    Index("ix_device_deployments_retry_wanted", "retry_wanted"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", _ID, nullable=False, unique=True),
    Column("work", _BYTES, nullable=False),
    Column("nodes", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("run", Integer, nullable=False, server_default="0"),
    Column("window_s", Integer, nullable=False),
    Column("spread_s", Integer, nullable=False),
    Column("schedule", String(128), nullable=False, server_default=""),
    Column("zone", String(64), nullable=False, server_default=""),
    Column("next_at", BigInteger, index=True),
    Column("after", _ID, nullable=False, server_default="", index=True),
    Column("after_run", Integer, nullable=False, server_default="0"),
    Column("on_metadata", Boolean, nullable=False, server_default=false()),
    Column("metadata_seen", JSON),
)

task_runs = Table(
    "task_runs",
    metadata,
    Column("task", _ID, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True, nullable=False),
    Column("run", Integer, primary_key=True, autoincrement=False, nullable=False),
    Column("node", _NODE, primary_key=True, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("step", Text, nullable=False, server_default=_EMPTY),
    Column("done", BigInteger, nullable=False, server_default="0"),
    Column("total", BigInteger, nullable=False, server_default="0"),
    Column("rate_bytes_per_s", BigInteger, nullable=False, server_default="0"),
    Column("reason", Text, nullable=False, server_default=_EMPTY),
    Column("figures", JSON, nullable=False),
    Column("report", _ID, nullable=False, server_default=""),
    Column("seconds", _DOUBLE, nullable=False, server_default="0"),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("finished", BigInteger),
)

task_items = Table(
    "task_items",
    metadata,
    Column("task", _ID, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True, nullable=False),
    Column("run", Integer, primary_key=True, autoincrement=False, nullable=False),
    Column("node", _NODE, primary_key=True, nullable=False),
    Column("subject", String(255), primary_key=True, nullable=False),
    Column("state", String(16), nullable=False),
    Column("step", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
)

content_reports = Table(
    "content_reports",
    metadata,
    Column("node", _NODE, primary_key=True),
    Column("info_hash", _INFO_HASH, primary_key=True),
    Column("target", _TARGET, nullable=False),
    Column("receiver_role", String(16), nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("unattributed", BigInteger, nullable=False),
    Column("wasted", BigInteger, nullable=False),
    Column("candidates", JSON, nullable=False),
    Column("updated", BigInteger, nullable=False),
)

content_sources = Table(
    "content_sources",
    metadata,
    Column("node", _NODE, primary_key=True),
    Column("info_hash", _INFO_HASH, primary_key=True),
    Column("source", _NODE, primary_key=True),
    Column("role", String(16), nullable=False),
    Column("receiver_role", String(16), nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("sent", BigInteger, nullable=False),
)

refusals = Table(
    "refusals",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("node", _NODE, nullable=False),
    Column("id", _ID, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("times", Integer, nullable=False, server_default="1"),
    Index("ix_refusals_node_id", "node", "id", unique=True),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("info_hash", _INFO_HASH, primary_key=True),
    Column("length", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("published", Boolean, nullable=False),
    Column("damage", Text, nullable=False, server_default=_EMPTY),
    Column("stored", BigInteger, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False, server_default="0"),
    Column("unnamed_since", BigInteger),
)

sightings = Table(
    "sightings",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("key", String(32), nullable=False, unique=True),
    Column("device", String(16), nullable=False, index=True),
    Column("network", String(64), nullable=False, index=True),
    Column("sighting", JSON, nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False, index=True),
)

sighting_identities = Table(
    "sighting_identities",
    metadata,
    Column(
        "sighting",
        _NUMBER,
        ForeignKey("sightings.number", ondelete="CASCADE"),
        primary_key=True,
        nullable=False,
    ),
    Column("identity", String(32), primary_key=True, nullable=False),
    Index("ix_sighting_identities_identity", "identity"),
)

inventory_conflicts = Table(
    "inventory_conflicts",
    metadata,
    Column("identity", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("value", String(255), nullable=False),
    Column("network", String(64), nullable=False),
    Column("devices", JSON, nullable=False),
    Column("since", BigInteger, nullable=False),
)

placement_rules = Table(
    "placement_rules",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("pattern", String(limits.GROUP_PATH_CHARS_MAX), nullable=False),
    Column("network", String(64), nullable=False),
    _group_column(),
    Column("created", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", _ID, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

replay_windows = Table(
    "replay_windows",
    metadata,
    Column("node", _NODE, ForeignKey("devices.node", ondelete="CASCADE"), primary_key=True),
    Column("window", _BYTES, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False, server_default=_EMPTY),
)

wake_places = Table(
    "wake_places",
    metadata,
    Column("node", _NODE, ForeignKey("devices.node", ondelete="CASCADE"), primary_key=True),
    Column("place", JSON, nullable=False),
    Column("via", _NODE, nullable=False, server_default=""),
    Column("knows", _BYTES, nullable=False),
    Column("ways", JSON, nullable=False),
    Column("updated", BigInteger, nullable=False),
)

proposals = Table(
    "proposals",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("task", _ID, nullable=False, index=True),
    Column("product", String(limits.NAME_CHARS_MAX), nullable=False),
    Column("version", String(limits.NAME_CHARS_MAX), nullable=False),
    Column("architecture", String(32), nullable=False),
    Column("url", Text, nullable=False),
    Column("file", String(255), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("signed", Boolean, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
)
