"""Rows as they leave the store: frozen, named like the columns. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import RowMapping

from p2pdist.core.identities import Kind
from p2pdist.core.placement import PlacementRule, RuleKind
from p2pdist.ids import GroupPath, InfoHash, NodeId, TargetPath
from p2pdist.wire.following import ProposalState
from p2pdist.wire.frames import Candidate
from p2pdist.wire.messages import Stage

ApiRole = Literal["admin", "operator", "reader"]
"""``reader`` looks, ``operator`` deploys and enrols, ``admin`` also revokes, publishes and makes tokens."""

Receiver = Literal["point", "device", "origin"]

T = TypeVar("T", bound=msgspec.Struct)


class GroupRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An administration group. ``devices`` counts those in it and not revoked, without its subgroups."""

    path: GroupPath
    created: int
    devices: int = 0


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolled node.

    ``via`` is the neighbour that last carried it: empty for a direct link. ``revision_known``
    is that of the desired state which it last said it has. ``clones`` counts the
    attempts of another machine to use its key.
    """

    node: NodeId
    name: str
    platform: str
    group_path: GroupPath
    public: bytes
    machine: str
    enrolled: int
    last_seen: int | None
    via: str
    program: str
    revision_known: int
    certificate_expires: int
    disk_free_bytes: int
    metadata_versions: Mapping[str, int]
    swarms: tuple[str, ...]
    installed: Mapping[str, int]
    revoked: int | None
    revoked_reason: str
    clones: int


class CloneRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to use a device's key from elsewhere."""

    node: NodeId
    at: int
    host: str
    reason: str


class EnrolmentTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An enrolment token, without its secret."""

    id: str
    group_path: GroupPath
    uses: int
    uses_left: int
    expires: int
    created: int
    created_by: str
    note: str


class ApiTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A token for the HTTP API, without its secret."""

    id: str
    name: str
    role: ApiRole
    expires: int | None
    created: int


class DeploymentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One target ordered onto a group with its subgroups; ``number`` grows with each order."""

    id: str
    number: int
    target: TargetPath
    group_path: GroupPath
    created: int
    created_by: str
    stopped: int | None


class DeviceDeploymentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How far one deployment is on one device. ``report`` is the id of the report that ended it.

    ``retry`` is the try that this is of, ``retry_wanted`` the one that was asked for last.
    """

    deployment: str
    node: NodeId
    target: TargetPath
    stage: Stage
    fraction: float
    rate_bytes_per_s: int
    sources: int
    reason: str
    exit_code: int | None
    output: bytes
    seconds: float
    report: str
    started: int
    updated: int
    finished: int | None
    retry: int
    retry_wanted: int


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator wants done, once or again and again. ``work`` is packed; ``run`` is the newest, or 0.

    ``schedule`` is a cron line in the time of ``zone``, or empty. ``next_at`` is when the next run begins.
    ``after`` is the task whose runs begin one of this, or empty; ``after_run`` the newest of them that the
    newest run of this has taken in. ``on_metadata`` says that new metadata begins a run; ``metadata_seen`` is
    the version of each role that the newest run of this has taken in.
    """

    id: str
    number: int
    work: bytes
    nodes: tuple[NodeId, ...]
    created: int
    created_by: str
    run: int
    window_s: int
    spread_s: int
    schedule: str
    zone: str
    next_at: int | None
    after: str
    after_run: int
    on_metadata: bool
    metadata_seen: Mapping[str, int] | None


class TaskRunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run on one node. ``report`` is the id of the result that ended it, empty if the server did.

    ``state`` is ``waiting``, ``running``, or an outcome (:data:`p2pdist.wire.tasks.Outcome`).
    """

    task: str
    run: int
    node: NodeId
    not_before: int
    not_after: int
    state: str
    step: str
    done: int
    total: int
    rate_bytes_per_s: int
    reason: str
    figures: Mapping[str, int]
    report: str
    seconds: float
    created: int
    updated: int
    finished: int | None


class TaskItemRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a run is about, and what came of it."""

    node: NodeId
    subject: str
    state: str
    step: str
    detail: str
    size_bytes: int
    updated: int


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """Content bytes that stand in no source's account; see :class:`~p2pdist.wire.messages.ContentReport`."""

    held: int
    unattributed: int
    wasted: int


class ContentReportRecord(Beside, frozen=True, kw_only=True):
    """Every source that one node considered for one artifact."""

    node: NodeId
    info_hash: InfoHash
    target: TargetPath
    receiver_role: Receiver
    candidates: tuple[Candidate, ...]
    updated: int


class ContentSourceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Content bytes between one node and one source, for one artifact."""

    node: NodeId
    info_hash: InfoHash
    source: str
    role: str
    receiver_role: Receiver
    received: int
    sent: int


class ArtifactRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A content file at the server. ``damage`` says why it is not served, and is empty while it is good.

    ``unnamed_since`` is since when no signed release names it; then its file may be gone.
    """

    info_hash: InfoHash
    length: int
    sha256: str
    modified_ns: int
    published: bool
    damage: str
    stored: int
    sent_bytes: int
    unnamed_since: int | None = None


class RefusalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a node (the server included) refused for want of trust."""

    number: int
    node: NodeId
    id: str
    kind: str
    subject: str
    reason: str
    at: int
    times: int


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what."""

    number: int
    at: int
    actor: str
    action: str
    subject: str
    detail: str


class InventoryConflictRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An identity that several discovered devices claim. ``network``: where it counts; empty: everywhere."""

    kind: Kind
    value: str
    network: str
    devices: tuple[str, ...]
    since: int


class PlacementRuleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that says which group discovered devices belong into."""

    number: int
    kind: RuleKind
    pattern: str
    network: str
    group_path: GroupPath
    created: int
    created_by: str

    @property
    def rule(self) -> PlacementRule:
        """What it says."""
        return PlacementRule(
            kind=self.kind, pattern=self.pattern, group=self.group_path, network=self.network
        )


class ProposalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A version that a vendor offers. ``first`` and ``last`` are when it was found on offer."""

    id: str
    task: str
    product: str
    version: str
    architecture: str
    url: str
    file: str
    size_bytes: int
    sha256: str
    signed: bool
    state: ProposalState
    first: int
    last: int


def record_of(row: RowMapping | Mapping[str, Any], kind: type[T]) -> T:
    """Make a record from a row; columns that the record does not name are left out."""
    return msgspec.convert({name: row[name] for name in kind.__struct_fields__ if name in row}, kind)
