"""An admin server that has been taken over: the real program, with everything that is on the server.

Whoever runs it has the server's identity, the fleet's certificate authority and the online key, and so
can sign snapshot and timestamp. The keys of the channel are not on the server. So it signs a release of
its own with a key of its own, says that this is the newest metadata, and serves it to everybody.

Run as a program: ``usurper.py run --config server.toml``, like ``p2pdist-server``.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets

from p2pdist.config import load_config
from p2pdist.ids import TargetPath
from p2pdist.server import main as server
from p2pdist.server.config import ServerConfig
from p2pdist.server.initialise import open_online_key
from p2pdist.server.service import Service
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.trust.keys import Ed25519Signer
from p2pdist.trust.online import make_snapshot, make_timestamp, meta_of
from p2pdist.trust.publication import OnlineRepository
from p2pdist.wire.requests import Bundle

VERSION, SEQUENCE = "6.6.6", 666


class Forgery(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata with a release that the channel's keys have not signed, and its version by role."""

    files: Mapping[str, bytes]
    versions: Mapping[str, int]


def forge(honest: Mapping[str, bytes], role: str, online: Signer, wrong: Signer) -> Forgery:
    """Add a release to *role*, signed by *wrong*; make it current with the *online* key."""
    now = datetime.now(UTC)
    documents = {name: Metadata[Any].from_bytes(data) for name, data in honest.items()}
    old_snapshot = next(d.signed for d in documents.values() if isinstance(d.signed, Snapshot))
    version = old_snapshot.meta[f"{role}.json"].version
    channel: Metadata[Targets] = documents[f"{version}.{role}.json"]
    path, genuine = min(channel.signed.targets.items(), key=lambda item: (item[1].length, item[0]))
    forged = copy.deepcopy(genuine)
    forged.unrecognized_fields["custom"] = {**genuine.custom, "version": VERSION, "sequence": SEQUENCE}
    channel.signed.targets[_forged_path(path)] = forged
    channel.signed.version = version + 1
    channel.sign(wrong)
    data = channel.to_bytes()
    meta: dict[str, MetaFile] = {**old_snapshot.meta, f"{role}.json": meta_of(data, version + 1)}
    snapshot_version = old_snapshot.version + 1
    timestamp_version = documents["timestamp.json"].signed.version + 1
    snapshot = make_snapshot(meta, version=snapshot_version, signer=online, now=now)
    timestamp = make_timestamp(
        snapshot, snapshot_version=snapshot_version, version=timestamp_version, signer=online, now=now
    )
    return Forgery(
        files={
            **honest,
            f"{version + 1}.{role}.json": data,
            f"{snapshot_version}.snapshot.json": snapshot,
            "timestamp.json": timestamp,
        },
        versions={role: version + 1, "snapshot": snapshot_version, "timestamp": timestamp_version},
    )


def _forged_path(path: str) -> str:
    channel, product, _, name = path.split("/")
    return f"{channel}/{product}/{VERSION}/{name}"


def _with_forgery(catalog: Catalog) -> Catalog:
    """Add the same release to what the server believes itself, so that it can be ordered."""
    path, genuine = min(catalog.releases.items(), key=lambda item: (item[1].length, item[0]))
    forged: Release = msgspec.structs.replace(
        genuine, target=TargetPath(_forged_path(path)), version=VERSION, sequence=SEQUENCE
    )
    return msgspec.structs.replace(catalog, releases={**catalog.releases, forged.target: forged})


def take_over(config: ServerConfig) -> None:
    """Make this process's repository serve a forgery instead of what is on the disk."""
    online = open_online_key(config.online.key, config.online.passphrase_file)
    wrong = Ed25519Signer(os.urandom(32), name="usurper")
    export, versions = OnlineRepository.export, OnlineRepository.versions
    forgeries: list[Forgery] = []

    def forged(repository: OnlineRepository) -> Forgery:
        if not forgeries:
            honest = export(repository, {}).files
            role = next(n.split(".", 1)[1][:-5] for n in sorted(honest) if ".channel-" in n)
            forgeries.append(forge(honest, role, online, wrong))
        return forgeries[0]

    def serve_forged(repository: OnlineRepository, have: Mapping[str, int]) -> Bundle:
        return Bundle(files=dict(forged(repository).files))

    def say_forged(repository: OnlineRepository) -> dict[str, int]:
        return {**versions(repository), **forged(repository).versions}

    take = Service._take

    async def take_forged(service: Service, catalog: Catalog) -> None:
        await take(service, _with_forgery(catalog) if catalog.releases else catalog)

    Service._take = take_forged  # type: ignore[assignment,method-assign]
    OnlineRepository.export = serve_forged  # type: ignore[assignment,method-assign]
    OnlineRepository.versions = say_forged  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    take_over(load_config(Path(sys.argv[sys.argv.index("--config") + 1]), ServerConfig, os.environ))
    server.main()
