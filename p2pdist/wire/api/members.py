"""Groups, tokens, devices, distribution points."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.api.base import TOKEN_LIFE_S_MAX, Answer, ApiRole, GroupText, Request, Text


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


class NewEnrolment(Request, frozen=True, kw_only=True):
    """Enrol a machine that cannot dial: ``sealed`` is what it would have sent itself."""

    sealed: Annotated[bytes, Meta(max_length=limits.ENROL_BYTES_MAX)]


class EnrolledNode(Answer, frozen=True, kw_only=True):
    """A new member, and its certificate (PEM)."""

    fleet: str
    node: str
    group: str
    certificate: str


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


class DeviceInfo(Answer, frozen=True, kw_only=True):
    """A device. ``via`` is the distribution point that carries it; empty is a link of its own.

    One that is ``resting`` has none, and comes when it is woken.
    """

    node: str
    name: str
    group: str
    role: Literal["device", "point"]
    state: Literal["online", "resting", "offline", "revoked"]
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
    """How far one deployment is on one device. ``received`` are its content bytes by kind of source.

    ``retry_pending`` says that another try was asked for, of which the device has said nothing yet.
    """

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
    retry_pending: bool = False


class CloneInfo(Answer, frozen=True, kw_only=True):
    """One attempt of another machine to use a device's key."""

    at: int
    host: str
    reason: str


class WayInfo(Answer, frozen=True, kw_only=True):
    """One way on which a resting device was woken: how often it was tried and worked, as far as it counts."""

    way: str
    tried: int
    reached: int
    delay_ms: int


class DeviceDetail(Answer, frozen=True, kw_only=True):
    """A device with everything that is known of it."""

    device: DeviceInfo
    machine: str
    revision_known: int
    metadata: dict[str, int]
    swarms: list[str]
    deployments: list[DeviceDeployment]
    clones: list[CloneInfo]
    woken: list[WayInfo] = msgspec.field(default_factory=list)


class MoveDevice(Request, frozen=True, kw_only=True):
    """Put a device into another group."""

    group: GroupText


class RevokeDevice(Request, frozen=True, kw_only=True):
    """Take a device out of the fleet for good; it is told the reason."""

    reason: Annotated[str, Meta(min_length=1, max_length=limits.TEXT_CHARS_MAX)]


class PointInfo(Answer, frozen=True, kw_only=True):
    """A distribution point as its seed grant says, and what it does now.

    One that is ``dialled`` dials nobody. ``call`` says in words how that goes from the admin server;
    ``call_since`` is since when, in Unix seconds.
    """

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
    dialled: bool = False
    call: str = ""
    call_since: int | None = None


class PointList(Answer, frozen=True, kw_only=True):
    """Every distribution point that has a signed grant."""

    points: list[PointInfo]
