"""What crosses the admin server's HTTP API, as JSON: the operator's command line is its client.

Requests refuse unknown fields; answers may grow. Times are Unix seconds, sizes bytes, byte strings
base64. The routes stand in :mod:`p2pdist.server.api.routes`, from which the OpenAPI description is made.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits

Text = Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]
GroupText = Annotated[str, Meta(max_length=limits.GROUP_PATH_CHARS_MAX, description="a group's path")]
TargetText = Annotated[
    str, Meta(max_length=limits.TARGET_PATH_CHARS_MAX, description="a target path, or product@version")
]
ApiRole = Literal["admin", "operator", "reader"]

PROBLEM_TYPE = "application/problem+json"
TOKEN_LIFE_S_MAX = 365 * 24 * 3600


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is sent to the server."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the server answers."""


class ProblemDetails(Answer, frozen=True, kw_only=True):
    """Why a request was not carried out (RFC 9457). ``hint`` is the next step."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""


class Done(Answer, frozen=True, kw_only=True):
    """It was carried out, and there is nothing more to say."""

    done: bool = True


class Health(Answer, frozen=True, kw_only=True):
    """The server answers. ``store`` is ``ok``, or why the database cannot be used."""

    status: Literal["ok", "impaired"]
    store: str
    version: str


# Groups ----------------------------------------------------------------------------------------------


class NewGroup(Request, frozen=True, kw_only=True):
    """Make a group, with the ancestors that are missing."""

    path: GroupText


class MoveGroup(Request, frozen=True, kw_only=True):
    """Give a group with its subgroups another path."""

    path: GroupText
    to: GroupText


class RemoveGroup(Request, frozen=True, kw_only=True):
    """Remove an empty group."""

    path: GroupText


class GroupInfo(Answer, frozen=True, kw_only=True):
    """A group, and how many devices stand directly in it. ``points`` serve it."""

    path: str
    created: int
    devices: int
    points: list[str]


class GroupList(Answer, frozen=True, kw_only=True):
    """Every group, parents before children."""

    groups: list[GroupInfo]


class GroupsChanged(Answer, frozen=True, kw_only=True):
    """The paths that are new. ``warnings`` are for people."""

    paths: list[str]
    warnings: list[str] = msgspec.field(default_factory=list)


# Enrolment -------------------------------------------------------------------------------------------


class NewToken(Request, frozen=True, kw_only=True):
    """Make an enrolment token: who has it may enrol devices into *group*."""

    group: GroupText
    uses: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    life_s: Annotated[int, Meta(ge=1, le=TOKEN_LIFE_S_MAX)] = 24 * 3600
    note: Text = ""


class MadeToken(Answer, frozen=True, kw_only=True):
    """A token and, this once, its secret."""

    id: str
    token: str
    expires: int | None


class TokenInfo(Answer, frozen=True, kw_only=True):
    """An enrolment token without its secret."""

    id: str
    group: str
    state: Literal["valid", "used up", "expired"]
    uses: int
    uses_left: int
    expires: int
    created: int
    created_by: str
    note: str


class TokenList(Answer, frozen=True, kw_only=True):
    """Every enrolment token, newest first."""

    tokens: list[TokenInfo]


class NewApiToken(Request, frozen=True, kw_only=True):
    """Make a token for this API. Without ``life_s`` it does not expire."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    role: ApiRole = "operator"
    life_s: Annotated[int, Meta(ge=1, le=10 * TOKEN_LIFE_S_MAX)] | None = None


class ApiTokenInfo(Answer, frozen=True, kw_only=True):
    """A token for this API without its secret."""

    id: str
    name: str
    role: ApiRole
    expires: int | None
    created: int


class ApiTokenList(Answer, frozen=True, kw_only=True):
    """Every token for this API, newest first."""

    tokens: list[ApiTokenInfo]


# Devices ---------------------------------------------------------------------------------------------


class DeviceInfo(Answer, frozen=True, kw_only=True):
    """A device. ``via`` is the distribution point that carries it; empty is a link of its own."""

    node: str
    name: str
    group: str
    role: Literal["device", "point"]
    state: Literal["online", "offline", "revoked"]
    via: str
    platform: str
    program: str
    enrolled: int
    last_seen: int | None
    certificate_expires: int
    disk_free_bytes: int
    installed: dict[str, int]
    clones: int
    revoked_reason: str


class DeviceList(Answer, frozen=True, kw_only=True):
    """Devices, by name."""

    devices: list[DeviceInfo]


class DeviceDeployment(Answer, frozen=True, kw_only=True):
    """How far one deployment is on one device. ``received`` are its content bytes by kind of source."""

    deployment: str
    target: str
    node: str
    name: str
    online: bool
    stage: str
    fraction: float
    rate_bytes_per_s: int
    sources: int
    received: dict[str, int]
    reason: str
    exit_code: int | None
    output: str
    seconds: float
    updated: int | None


class CloneInfo(Answer, frozen=True, kw_only=True):
    """One attempt of another machine to use a device's key."""

    at: int
    host: str
    reason: str


class DeviceDetail(Answer, frozen=True, kw_only=True):
    """A device with everything that is known of it."""

    device: DeviceInfo
    machine: str
    revision_known: int
    metadata: dict[str, int]
    swarms: list[str]
    deployments: list[DeviceDeployment]
    clones: list[CloneInfo]


class MoveDevice(Request, frozen=True, kw_only=True):
    """Put a device into another group."""

    group: GroupText


class RevokeDevice(Request, frozen=True, kw_only=True):
    """Take a device out of the fleet for good; it is told the reason."""

    reason: Annotated[str, Meta(min_length=1, max_length=limits.TEXT_CHARS_MAX)]


class PointInfo(Answer, frozen=True, kw_only=True):
    """A distribution point as its seed grant says, and what it does now."""

    node: str
    name: str
    scope: str
    duties: list[str]
    addresses: list[str]
    expires: int
    state: Literal["online", "offline", "not enrolled", "grant expired", "revoked"]
    carries: int
    disk_bytes: int
    wan_bytes_per_s: int


class PointList(Answer, frozen=True, kw_only=True):
    """Every distribution point that has a signed grant."""

    points: list[PointInfo]


# Releases --------------------------------------------------------------------------------------------


class ChannelInfo(Answer, frozen=True, kw_only=True):
    """A channel: how many releases it has, and the version of its metadata."""

    name: str
    releases: int
    version: int


class ChannelList(Answer, frozen=True, kw_only=True):
    """Every channel."""

    channels: list[ChannelInfo]


class ReleaseInfo(Answer, frozen=True, kw_only=True):
    """A signed release. ``problem`` says why the server cannot serve its content; empty: it can."""

    target: str
    channel: str
    product: str
    version: str
    sequence: int
    platform: str
    recipe: str
    length: int
    sha256: str
    info_hash: str
    rollback_from: int | None
    problem: str


class ReleaseList(Answer, frozen=True, kw_only=True):
    """Every signed release, and what is signed but not believed, with the reason."""

    releases: list[ReleaseInfo]
    left_out: dict[str, str]


class ArtifactState(Answer, frozen=True, kw_only=True):
    """How much of an artifact's content is at the server."""

    info_hash: str
    stored_bytes: int
    complete: bool


class NewPublication(Request, frozen=True, kw_only=True):
    """Signed metadata files by name, and torrents by info-hash; the content was uploaded before."""

    metadata: Annotated[dict[str, bytes], Meta(max_length=limits.BUNDLE_FILES_MAX)]
    torrents: Annotated[dict[str, bytes], Meta(max_length=limits.BUNDLE_FILES_MAX)] = msgspec.field(
        default_factory=dict
    )


class Published(Answer, frozen=True, kw_only=True):
    """What is published now. ``expires`` is when the first role in it does."""

    versions: dict[str, int]
    releases: int
    points: int
    expires: int
    left_out: dict[str, str]


# Deployments -----------------------------------------------------------------------------------------


class NewDeployment(Request, frozen=True, kw_only=True):
    """Order a release onto a group with all its subgroups, devices that join later included."""

    target: TargetText
    group: GroupText


class DeploymentInfo(Answer, frozen=True, kw_only=True):
    """A deployment. ``devices`` are those that it reaches now, ``stages`` how many are where.

    A device that has said nothing yet counts as ``unheard``.
    """

    id: str
    target: str
    group: str
    created: int
    created_by: str
    stopped: int | None
    devices: int
    stages: dict[str, int]


class DeploymentList(Answer, frozen=True, kw_only=True):
    """Every deployment, newest first."""

    deployments: list[DeploymentInfo]


class DeploymentDetail(Answer, frozen=True, kw_only=True):
    """A deployment with each of its devices. ``finished`` once each has installed, failed or refused."""

    deployment: DeploymentInfo
    finished: bool
    devices: list[DeviceDeployment]


# Looking around --------------------------------------------------------------------------------------


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
    """One candidate source: whether it was taken, why, and the bytes between it and the device."""

    node: str
    name: str
    role: str
    address: str
    taken: bool
    reason: str
    received: int
    sent: int


class Explanation(Answer, frozen=True, kw_only=True):
    """Where a device gets a release from, and why from there. ``notes`` are sentences for people."""

    node: str
    name: str
    group: str
    target: str
    info_hash: str
    stage: str
    reported: int | None
    sources: list[ExplainedSource]
    notes: list[str]


class Status(Answer, frozen=True, kw_only=True):
    """The fleet at a glance.

    ``received`` are content bytes by receiver (``device``, ``point``) and kind of source.
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
    origin_sent_bytes: int
    disk_free_bytes: int
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
