"""Frames: what two neighbours on one link say to each other.

Both directions of a link's control stream carry frames, whoever dialled. On the stream each frame is
a four-byte big-endian length and that many bytes of msgpack (:mod:`p2pdist.wire.codec`).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.stun import Endpoint as StunEndpoint

NodeIdText = Annotated[str, Meta(pattern=r"^[a-z2-7]{32}$", max_length=32)]
InfoHashText = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", max_length=64)]
SessionIdText = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$", max_length=32)]
"""128 random bits: whoever knows them may bring a path to the session, nothing else."""
Host = Annotated[str, Meta(min_length=1, max_length=255)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Role = Literal["origin", "point", "device"]
Dialler = Literal["receiver", "source", "either"]
"""Who makes the connection on which content flows; ``either``: as they learn of each other."""
RoleName = Annotated[str, Meta(min_length=1, max_length=128)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Text = Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]
Stamp = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="frame"):
    """Base of every frame."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An address and a port of a node's swarm: for TCP, and for uTP with the same number."""

    host: Host
    port: Port


Endpoints = Annotated[list[Endpoint], Meta(max_length=limits.ENDPOINTS_MAX)]
Path = Literal["direct", "punched", "relayed"]
"""How content comes from a source: over a connection that one side dialled, over one that both sides called
for at the same moment, or from the gateway, which passes on what others have."""


class Presence(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact that a node holds, wholly or in part, or wants.

    ``have`` and ``pieces`` count pieces. ``complete`` is true once everything is there and verified.
    With ``no_room`` the node wants it, but cannot hold it now: it neither fetches nor serves it. An origin
    says that it is ``mirrored`` where it comes from vendors' mirrors, and not from the origin.
    ``unreached`` are sources that it was told to take and has no connection with, although it tried.
    """

    info_hash: InfoHashText
    have: Count
    pieces: Count
    complete: bool
    no_room: bool = False
    mirrored: bool = False
    unreached: Annotated[list[NodeIdText], Meta(max_length=limits.UNREACHED_MAX)] = msgspec.field(
        default_factory=list
    )


class Announce(Frame, frozen=True, kw_only=True, tag="announce"):
    """Upwards: the swarm port of this node, and every artifact that it takes part in (the whole list).

    ``endpoints`` are where its swarm listens, by its own addresses: those that its neighbours on a LAN dial.
    """

    role: Role
    port: Port
    artifacts: Annotated[list[Presence], Meta(max_length=limits.TORRENTS_ACTIVE_MAX)]
    endpoints: Endpoints = msgspec.field(default_factory=list)


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One possible source, and whether the neighbour's rules take it.

    ``reason`` is a sentence for people; it travels to ``p2pdist explain``. ``dial`` says who dials: one of
    them may stand where nothing may be dialled from, or behind a NAT. ``path`` is how the receiver is to
    reach it, and in the receiver's report how it does: one that is to be ``punched`` is not dialled at
    ``host`` and ``port``, a :class:`Call` will say when and where. ``endpoints`` are more addresses to dial.
    """

    node: NodeIdText
    role: Role
    host: Host
    port: Port
    taken: bool
    reason: Text
    dial: Dialler = "either"
    path: Path = "direct"
    endpoints: Endpoints = msgspec.field(default_factory=list)


class Sources(Frame, frozen=True, kw_only=True, tag="sources"):
    """Downwards: everybody who could serve one artifact to the receiver, with the decision on each."""

    info_hash: InfoHashText
    candidates: Annotated[list[Candidate], Meta(max_length=limits.CANDIDATES_MAX)]


class Observe(Frame, frozen=True, kw_only=True, tag="observe"):
    """Downwards: let the sender see where this node's swarm is from outside, by a datagram to each observer.

    ``token`` says whose datagram it is. An observer without an address (``0.0.0.0``) is where the link's
    other side is.
    """

    info_hash: InfoHashText
    observers: Endpoints
    token: SessionIdText


class Call(Frame, frozen=True, kw_only=True, tag="call"):
    """Downwards, to two nodes at the same moment: open your NAT for the other's endpoints.

    The one that ``dials`` then connects to them over uTP. ``attempt`` counts from 1.
    """

    info_hash: InfoHashText
    node: NodeIdText
    endpoints: Endpoints
    dials: bool
    attempt: Annotated[int, Meta(ge=1, le=limits.CALLS_MAX)]


class ContentRefused(Frame, frozen=True, kw_only=True, tag="content-refused"):
    """Either way: bytes that a source served for an artifact do not match its signed hashes."""

    info_hash: InfoHashText
    source: NodeIdText
    by: NodeIdText
    reason: Text


class MetadataVersions(Frame, frozen=True, kw_only=True, tag="metadata-versions"):
    """Downwards: the versions of the roles' metadata that the admin server has published."""

    versions: Annotated[dict[RoleName, Annotated[int, Meta(ge=1)]], Meta(max_length=limits.BUNDLE_FILES_MAX)]


class Arrived(Frame, frozen=True, kw_only=True, tag="arrived"):
    """Upwards, first on each link: the sender is reached over this link from now on.

    ``stamp`` is larger than on any link of the sender before: of two gateways that say that they carry
    it, the one with the larger stamp is right.
    """

    stamp: Stamp


class Attached(Frame, frozen=True, kw_only=True, tag="attached"):
    """Upwards: nodes that ``carrier`` has links with from now on, and nodes that it has none with any more.

    ``carrier`` is the sender, or a gateway below it. What is said of a carrier adds up, from the moment
    that its own link began; ``nodes`` are with their stamps (see :class:`Arrived`).
    """

    carrier: NodeIdText
    nodes: Annotated[dict[NodeIdText, Stamp], Meta(max_length=limits.ATTACHED_MAX)]
    gone: Annotated[list[NodeIdText], Meta(max_length=limits.ATTACHED_MAX)] = msgspec.field(
        default_factory=list
    )


class Way(Frame, frozen=True, kw_only=True, tag="way"):
    """Downwards, to a gateway: the nodes from the sender to the admin server; empty while there is none."""

    nodes: Annotated[list[NodeIdText], Meta(max_length=limits.GATEWAYS_IN_A_ROW_MAX + 1)]


class StunServers(Frame, frozen=True, kw_only=True, tag="stun-servers"):
    """Downwards: where the receiver can ask how NATs show it, the nearest gateway first, the server last."""

    endpoints: Annotated[list[StunEndpoint], Meta(max_length=limits.STUN_SERVERS_MAX)]


class Routed(Frame, frozen=True, kw_only=True, tag="routed"):
    """Either way: a sealed envelope on its way; its own header says to whom."""

    envelope: Envelope


class Taken(Frame, frozen=True, kw_only=True, tag="taken"):
    """Either way: the sender answers for the first ``count`` envelopes that came over this link.

    It has them on its disk, has dealt with them, or somebody farther on has; their sender may forget them.
    Those in ``refused`` are the exception: it had no room for them. Nobody is named twice.
    """

    count: Count
    refused: Annotated[list[Count], Meta(max_length=limits.MAILBOX_FLIGHT_ENVELOPES_MAX)] = msgspec.field(
        default_factory=list
    )


AnyFrame: TypeAlias = (
    Announce
    | Sources
    | Observe
    | Call
    | ContentRefused
    | MetadataVersions
    | Arrived
    | Attached
    | Way
    | StunServers
    | Routed
    | Taken
)
