"""A fleet's signing repository for tests: alice, bob, carol (root 2 of 3), lead, ops, dev, rel, online."""

from __future__ import annotations

import hashlib
from pathlib import Path

from workshop import now, signer

from p2pdist.ids import ChannelName, FleetName, InfoHash, NodeId, TargetPath, parse_target
from p2pdist.trust import changes, releases
from p2pdist.trust.catalog import FileRecipe, ReleaseCustom, SeedGrant
from p2pdist.trust.changes import KeySet
from p2pdist.trust.publishing import Published, publish
from p2pdist.trust.repository import Repository
from p2pdist.trust.signing import Lives, SigningState

STABLE = ChannelName("stable")
PEOPLE = ("alice", "bob", "carol", "lead", "ops", "dev", "rel")


def keys(*names: str, threshold: int = 1) -> KeySet:
    return KeySet(keys=tuple(signer(name).public_key for name in names), threshold=threshold)


def found(directory: Path, *, third: str = "carol") -> Repository:
    """Make a repository with one channel, unsigned. Another *third* key holder makes another fleet."""
    state = changes.found_fleet(
        FleetName("acme"),
        root=keys("alice", "bob", third, threshold=2),
        targets=keys("lead"),
        points=keys("ops"),
        online=signer("online").public_key,
        lives=Lives(),
        now=now(),
    )
    changes.add_channel(state, STABLE, keys("dev", "rel", threshold=2), now())
    return Repository.create(directory, state)


def target(version: str, product: str = "app") -> TargetPath:
    return TargetPath(f"stable/{product}/{version}/{product}.bin")


def add(repository: Repository, version: str, content: bytes = b"content") -> TargetPath:
    """Add a release whose content and torrent are small stand-ins (no libtorrent here)."""
    content = content + version.encode()
    info_hash = InfoHash(hashlib.sha256(b"info" + content).hexdigest())
    incoming = repository.incoming / "new"
    incoming.write_bytes(content)
    repository.take_content(incoming, b"torrent of " + content, info_hash)
    path = parse_target(target(version))
    with repository.change() as state:
        custom = ReleaseCustom(
            product="app",
            version=version,
            sequence=releases.sequence_for(state, path),
            platform="any",
            info_hash=info_hash,
            recipe=FileRecipe(path="/etc/motd"),
        )
        sha256 = hashlib.sha256(content).hexdigest()
        releases.put_release(state, path, custom, length=len(content), sha256=sha256, now=now())
    return path


def grant(repository: Repository, node: NodeId) -> None:
    with repository.change() as state:
        changes.put_grant(
            state,
            SeedGrant(
                node=node,
                duties=("seed",),
                scope="/emea",
                addresses=("10.0.0.2:7600",),
                expires=2_000_000_000,
            ),
            now(),
        )


def sign_all(state: SigningState, *names: str) -> None:
    """Let people sign whatever waits for them."""
    for role in state.roles():
        for name in names or PEOPLE:
            if signer(name).public_key.keyid in state.wanted_keys(role):
                state.sign(role, signer(name))


def sign_and_publish(repository: Repository, directory: Path, *names: str) -> Published:
    with repository.change() as state:
        sign_all(state, *names)
    return publish(repository, directory, signer("online"), now=now())
