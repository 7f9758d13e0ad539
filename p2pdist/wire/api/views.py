"""Looking around: status, refusals, explanations, the audit log."""

from __future__ import annotations

from p2pdist.wire.api.base import Answer


class RefusalInfo(Answer, frozen=True, kw_only=True):
    """Something that a node refused for want of trust."""

    number: int
    node: str
    name: str
    kind: str
    subject: str
    reason: str
    at: int
    times: int


class RefusalList(Answer, frozen=True, kw_only=True):
    """Refusals, newest first."""

    refusals: list[RefusalInfo]


class ExplainedSource(Answer, frozen=True, kw_only=True):
    """One candidate source: whether it was taken, why, and the bytes between it and the device.

    ``path`` is how content comes from it: ``direct``, ``punched`` (both called each other at the same moment,
    through their NATs), or ``relayed`` (a gateway, which passes on what others have); empty where none does.
    """

    node: str
    name: str
    role: str
    address: str
    taken: bool
    reason: str
    path: str
    received: int
    sent: int


class Explanation(Answer, frozen=True, kw_only=True):
    """Where a device gets a release from, and why from there. ``notes`` are sentences for people.

    ``stage`` is a deployment's, or ``not begun``, ``stopped`` (its deployment no longer reaches the
    device), or ``held`` (complete at a distribution point that does not install it); ``reason`` is the
    device's own word on it. ``held`` are verified bytes on the device's disk, ``unattributed`` those of
    which it is not known who sent them, ``wasted`` what came in vain.
    """

    node: str
    name: str
    group: str
    target: str
    info_hash: str
    stage: str
    fraction: float
    reason: str
    reported: int | None
    length: int
    held: int
    unattributed: int
    wasted: int
    sources: list[ExplainedSource]
    notes: list[str]


class Status(Answer, frozen=True, kw_only=True):
    """The fleet at a glance.

    ``withdrawn_bytes`` are of content that no signed release names; they are removed after some days.
    ``received`` are content bytes by receiver (``device``, ``point``) and kind of source;
    ``unattributed`` those of which it is not known who sent them; ``wasted`` what came in vain.
    ``problems`` are sentences for people; empty when all is well.
    """

    fleet: str
    node: str
    version: str
    started: int
    addresses: list[str]
    devices: int
    devices_online: int
    devices_revoked: int
    points: int
    points_online: int
    releases: int
    deployments_active: int
    refusals: int
    metadata_expires: int | None
    received: dict[str, dict[str, int]]
    unattributed: dict[str, int]
    wasted: dict[str, int]
    origin_sent_bytes: int
    disk_free_bytes: int
    withdrawn_bytes: int
    problems: list[str]


class AuditInfo(Answer, frozen=True, kw_only=True):
    """Who did what."""

    at: int
    actor: str
    action: str
    subject: str
    detail: str


class AuditList(Answer, frozen=True, kw_only=True):
    """The newest entries of the audit log, newest first."""

    entries: list[AuditInfo]
