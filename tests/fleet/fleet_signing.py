"""What the fleet's owner signs: releases and grants, through the workshop of the trust tests."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tuf.api.metadata import TargetFile
from workshop import Workshop, grant_custom, release_custom

from p2pdist.core.deltas import window_log
from p2pdist.ids import ChannelName, FleetName, InfoHash, NodeId, TargetPath, swarm_of
from p2pdist.sign.deltas import write_delta
from p2pdist.swarm.torrents import MadeTorrent, make_torrent
from p2pdist.trust.catalog import Delta

FLEET = FleetName("acme")
CHANNEL = ChannelName("stable")
PLACE = "/opt/app.bin"
RELEASE_BYTES = 1_500_000


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """What `p2pdist-sign publish` would write: metadata, torrents, and content by info-hash."""

    metadata: Mapping[str, bytes]
    torrents: Mapping[InfoHash, bytes]
    content: Mapping[InfoHash, bytes]


class SignedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """A release, and its content."""

    target: TargetPath
    info_hash: InfoHash
    content: bytes
    deltas: tuple[InfoHash, ...] = ()


class SigningDesk:
    """Signs for one fleet. The workshop is at hand for whatever a test wants signed wrongly."""

    def __init__(self, directory: Path) -> None:
        self.workshop = Workshop()
        self._directory = directory
        self._torrents: dict[InfoHash, bytes] = {}
        self._content: dict[InfoHash, bytes] = {}
        self.workshop.targets["channel-stable"].targets.clear()
        self.workshop.sign()

    def release(
        self,
        version: str,
        *,
        sequence: int,
        size: int = RELEASE_BYTES,
        product: str = "app",
        place: str = PLACE,
        content: bytes = b"",
        bases: Sequence[SignedRelease] = (),
        **custom: Any,
    ) -> SignedRelease:
        """Sign a release, of random content by default, installed as the file *place*; with a delta from each
        of *bases*."""
        content = content or random.Random(f"{product} {version}").randbytes(size)
        made = self._made(content)
        deltas = [self._delta(base, content) for base in bases]
        if deltas:
            custom["deltas"] = [msgspec.to_builtins(delta) for delta in deltas]
        target = TargetPath(f"{CHANNEL}/{product}/{version}/{product}.bin")
        fields = {"info_hash": made.info_hash, "recipe": {"kind": "file", "path": place}, **custom}
        self.workshop.targets["channel-stable"].targets[target] = TargetFile(
            made.length,
            {"sha256": made.sha256},
            target,
            {"custom": release_custom(product, version, sequence, **fields)},
        )
        self.workshop.sign(bump=("channel-stable",))
        names = tuple(InfoHash(delta.info_hash) for delta in deltas)
        return SignedRelease(target=target, info_hash=made.info_hash, content=content, deltas=names)

    def grant(self, node: NodeId, addresses: Sequence[str], *, scope: str = "/emea", **fields: Any) -> None:
        """Sign a seed grant for *node*."""
        expires = {"expires": int(time.time()) + 9_999, **fields}
        self.workshop.add_grant(
            f"points/{node}.grant", grant_custom(node, scope=scope, addresses=list(addresses), **expires)
        )
        self.workshop.sign(bump=("points",))

    def publication(self) -> Publication:
        """Return everything that is signed now."""
        return Publication(
            metadata=self.workshop.publication(), torrents=dict(self._torrents), content=dict(self._content)
        )

    def _delta(self, base: SignedRelease, content: bytes) -> Delta:
        path = self._directory / "delta"
        write_delta(base.content, content, path)
        made = self._made(path.read_bytes())
        return Delta(
            base=base.info_hash,
            base_sha256=hashlib.sha256(base.content).hexdigest(),
            base_length=len(base.content),
            info_hash=made.info_hash,
            length=made.length,
            sha256=made.sha256,
            window_log=window_log(len(base.content), len(content)),
            base_unpacked=len(base.content),
            unpacked=len(content),
        )

    def _made(self, content: bytes) -> MadeTorrent:
        path = self._directory / "artifact"
        path.write_bytes(content)
        made = make_torrent(path, swarm=swarm_of(CHANNEL, FLEET))
        self._torrents[made.info_hash] = made.torrent
        self._content[made.info_hash] = content
        return made
