"""What the API says of discovered devices."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.api.base import Answer, GroupText, Request

IdentityKind = Literal["node", "guid", "mac", "host", "name", "address"]
RuleKind = Literal["range", "name", "unit", "platform"]


class FoundAddress(Answer, frozen=True, kw_only=True):
    """An address at which a device was seen in a network, from when to when."""

    address: str
    network: str
    first: int
    last: int


class FoundInfo(Answer, frozen=True, kw_only=True):
    """A device that discovery has found. Lists begin with what was seen last.

    ``known_by`` is the strongest identity that it has. ``state`` is ``unmanaged`` while it is no enrolled
    node. ``group`` is where it stands, or where the rules would put it; empty: nowhere.
    """

    id: str
    name: str
    state: Literal["unmanaged", "online", "resting", "offline", "revoked"]
    node: str
    group: str
    known_by: IdentityKind
    names: list[str]
    guid: str
    macs: list[str]
    addresses: list[FoundAddress]
    platform: str
    unit: str
    services: list[str]
    methods: list[str]
    networks: list[str]
    first: int
    last: int


class FoundList(Answer, frozen=True, kw_only=True):
    """Discovered devices by their ids. ``next`` is the last of them when there may be more; else empty."""

    devices: list[FoundInfo]
    next: str = ""


class Contender(Answer, frozen=True, kw_only=True):
    """A device that claims what others claim."""

    id: str
    name: str
    last: int


class ConflictInfo(Answer, frozen=True, kw_only=True):
    """An identity that several devices claim, so that it says of none who it is."""

    kind: IdentityKind
    value: str
    network: str
    since: int
    devices: list[Contender]


class ConflictList(Answer, frozen=True, kw_only=True):
    """Conflicts, the newest first."""

    conflicts: list[ConflictInfo]


class NewRule(Request, frozen=True, kw_only=True):
    """Devices that fit *pattern* belong into *group*; the first rule that fits decides."""

    kind: RuleKind
    pattern: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=limits.GROUP_PATH_CHARS_MAX,
            description="a range such as 10.1.0.0/16, a unit's distinguished name, else a glob",
        ),
    ]
    group: GroupText
    network: Annotated[str, Meta(max_length=64, description="where a range counts; empty: everywhere")] = ""


class RuleInfo(Answer, frozen=True, kw_only=True):
    """A placement rule."""

    number: int
    kind: RuleKind
    pattern: str
    group: str
    network: str
    created: int
    created_by: str


class RuleList(Answer, frozen=True, kw_only=True):
    """Every rule, in the order in which they are tried."""

    rules: list[RuleInfo]
