"""What goes into the swarm and comes out of it: artifacts, sources, events, statistics."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from p2pdist.ids import InfoHash, NodeId, SwarmName
from p2pdist.wire.frames import Endpoint, Path, Role
from p2pdist.wire.messages import SourceBytes


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One file to fetch, to serve, or both.

    ``torrent`` has passed :func:`~p2pdist.swarm.torrents.check_torrent`. ``path`` is the content file;
    it may be absent, partial or complete, and is read through and completed. With ``sealed`` it is
    complete, and not the swarm's to change: it is served at once, each piece is checked before it is
    served for the first time, and nothing is ever written to it.
    """

    info_hash: InfoHash
    torrent: bytes
    path: pathlib.Path
    swarm: SwarmName
    length: int
    sealed: bool = False


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A node that may serve an artifact.

    ``wan`` is true when the way to it leaves the site. One that is ``expected`` came later than this node,
    was told of it and dials it; this node dials only if that has not helped after a second. When both sides
    dial at the same moment, libtorrent 2.1.1 closes both connections, each side the one that came in, and
    waits 3 s. One that is not to be ``dialled`` from here makes every connection itself.

    One that is to be ``punched`` is not dialled at its address, but called when both are told to.
    ``endpoints`` are more addresses to dial, one after the other while it is not connected.
    """

    node: NodeId
    role: Role
    host: str
    port: int
    wan: bool = False
    expected: bool = False
    dialled: bool = True
    path: Path = "direct"
    endpoints: tuple[Endpoint, ...] = ()

    @property
    def addresses(self) -> tuple[Endpoint, ...]:
        """Where it is dialled, in this order; nowhere, if it can only be called."""
        own = () if self.path == "punched" else (Endpoint(host=self.host, port=self.port),)
        return (*own, *self.endpoints)


class ArtifactFinished(msgspec.Struct, frozen=True, kw_only=True):
    """Every piece is there, was verified, and has been written and synced to the disk."""

    info_hash: InfoHash


class PieceRefused(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of a piece did not match the signed hashes. They were thrown away.

    ``source`` sent them. It is ``None`` when that could not be found out, because several nodes sent
    parts of the piece and it came whole at the next attempt; ``suspects`` are all who sent parts.
    """

    info_hash: InfoHash
    piece: int
    source: NodeId | None
    suspects: tuple[NodeId, ...] = ()


class StrangerRefused(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody without a certificate for this swarm was turned away before a byte of content.

    Repeated attempts from one address are reported once a minute.
    """

    address: str
    reason: str


class StorageFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The content file cannot be written or read; fetching it rests, and goes on when it can be."""

    info_hash: InfoHash
    reason: str


class ContentAltered(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed file does not match its torrent. It is served no longer; it has to be added afresh."""

    info_hash: InfoHash
    reason: str


class ReachChanged(msgspec.Struct, frozen=True, kw_only=True):
    """Other sources of an artifact than before cannot be reached."""

    info_hash: InfoHash


SwarmEvent: TypeAlias = (
    ArtifactFinished | PieceRefused | StrangerRefused | StorageFailed | ContentAltered | ReachChanged
)


class ArtifactStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How far one artifact is. Rates are in content bytes per second, at most a second old.

    ``sources`` counts verified content bytes by the node that sent them, and those sent to it.
    ``unattributed`` are the bytes received from peers whose node is not known (yet) to this swarm:
    they are in nobody's account. What was on the disk before is in neither. ``paths`` says how nodes are or
    were connected, as far as that was looked at, ``unreached`` which sources should be connected and are not.
    """

    have: int
    pieces: int
    bytes_done: int
    complete: bool
    rate_down: int
    rate_up: int
    peers: int
    sources: tuple[SourceBytes, ...]
    unattributed: int = 0
    unreached: tuple[NodeId, ...] = ()
    refused_bytes: int = 0
    wasted_bytes: int = 0
    paths: Mapping[NodeId, Path] = msgspec.field(default_factory=dict)
