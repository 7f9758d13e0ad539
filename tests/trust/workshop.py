"""A workshop that makes TUF metadata by hand, right or wrong, without the code under test."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from securesystemslib.formats import encode_canonical
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from p2pdist.trust.keys import Ed25519Signer
from p2pdist.wire.requests import Bundle


def now() -> datetime:
    """The system's time: TUF's client reads no other."""
    return datetime.now(UTC)


def signer(name: str) -> Ed25519Signer:
    """The same name is the same key."""
    return Ed25519Signer(name.encode().ljust(32, b".")[:32], name=name)


def release_custom(product: str, version: str, sequence: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "product": product,
        "version": version,
        "sequence": sequence,
        "platform": "any",
        "info_hash": "ab" * 32,
        "recipe": {"kind": "file", "path": "/etc/motd"},
        **fields,
    }


def grant_custom(node: str, **fields: Any) -> dict[str, Any]:
    return {
        "node": node,
        "duties": ["seed"],
        "scope": "/emea",
        "addresses": ["10.0.0.2:7600"],
        "expires": 2_000_000_000,
        **fields,
    }


class Workshop:
    """One fleet's metadata: keys of alice, bob, carol (root, 2 of 3), lead (targets), dev and rel
    (channel ``stable``, 2 of 2), ops (points) and online. Change a part, then `sign` and `bundle`.
    """

    def __init__(self) -> None:
        self.roots: list[bytes] = []
        self.files: dict[str, bytes] = {}
        self.signers: dict[str, list[str]] = {
            "root": ["alice", "bob"],
            "targets": ["lead"],
            "snapshot": ["online"],
            "timestamp": ["online"],
            "channel-stable": ["dev", "rel"],
            "points": ["ops"],
        }
        self.root = Root(expires=self.later(365))
        for name in ("alice", "bob", "carol"):
            self.root.add_key(signer(name).public_key, "root")
        self.root.roles["root"].threshold = 2
        self.root.add_key(signer("lead").public_key, "targets")
        for role in ("snapshot", "timestamp"):
            self.root.add_key(signer("online").public_key, role)
        self.targets: dict[str, Targets] = {"targets": Targets(expires=self.later(90))}
        self.targets["targets"].delegations = Delegations({}, roles={})
        self.delegate("channel-stable", "stable/*/*/*", ["dev", "rel"])
        self.delegate("points", "points/*", ["ops"])
        self.snapshot = Snapshot(expires=self.later(7))
        self.timestamp = Timestamp(expires=self.later(1))
        self.add_release("stable/app/1.0/app.bin", release_custom("app", "1.0"))
        self.sign_root()
        self.sign()

    @staticmethod
    def later(days: float) -> datetime:
        return (now() + timedelta(days=days)).replace(microsecond=0)

    def delegate(self, role: str, pattern: str, keys: list[str]) -> None:
        delegations = self.targets["targets"].delegations
        assert delegations is not None
        assert delegations.roles is not None
        delegations.roles[role] = DelegatedRole(role, [], len(keys), True, [pattern])
        for name in keys:
            self.targets["targets"].add_key(signer(name).public_key, role)
        self.targets.setdefault(role, Targets(expires=self.later(90)))
        self.signers.setdefault(role, keys)

    def add_release(self, path: str, custom: Any, role: str = "channel-stable") -> None:
        self.targets[role].targets[path] = TargetFile(1_000, {"sha256": "cd" * 32}, path, {"custom": custom})

    def add_grant(self, path: str, custom: dict[str, Any]) -> None:
        content = (encode_canonical(custom) or "").encode()
        self.targets["points"].targets[path] = TargetFile.from_data(path, content, ["sha256"])
        self.targets["points"].targets[path].unrecognized_fields["custom"] = custom

    def sign_root(self) -> None:
        """Append the root as it is now to the chain."""
        self.root.version = len(self.roots) + 1
        self.roots.append(self._sign("root", self.root))

    def sign(self, *, bump: tuple[str, ...] = ()) -> None:
        """Sign everything but root as it is now. The roles in *bump* get new versions, and from the second
        time on snapshot and timestamp."""
        self.snapshot.version += bool(self.files)
        self.timestamp.version += bool(self.files)
        self.files = {}
        for role, targets in self.targets.items():
            targets.version += role in bump
            data = self._sign(role, targets)
            self.files[f"{targets.version}.{role}.json"] = data
            self.snapshot.meta[f"{role}.json"] = MetaFile.from_data(targets.version, data, ["sha256"])
        self.sign_online()

    def sign_online(self) -> None:
        """Sign snapshot and timestamp as they are now."""
        data = self._sign("snapshot", self.snapshot)
        self.files = {n: d for n, d in self.files.items() if not n.endswith(".snapshot.json")}
        self.files[f"{self.snapshot.version}.snapshot.json"] = data
        self.timestamp.snapshot_meta = MetaFile.from_data(self.snapshot.version, data, ["sha256"])
        self.files["timestamp.json"] = self._sign("timestamp", self.timestamp)

    def bundle(self, changed: Mapping[str, bytes | None] | None = None) -> Bundle:
        """Everything that there is, as a bundle; *changed* replaces files, or drops them (None)."""
        return Bundle(files=self.publication(changed))

    def publication(self, changed: Mapping[str, bytes | None] | None = None) -> dict[str, bytes]:
        files: dict[str, bytes | None] = {f"{i + 1}.root.json": root for i, root in enumerate(self.roots)}
        files |= self.files
        files |= changed or {}
        return {name: data for name, data in files.items() if data is not None}

    def _sign(self, role: str, signed: Any) -> bytes:
        metadata = Metadata(signed)
        for name in self.signers[role]:
            metadata.sign(signer(name), append=True)
        return metadata.to_bytes()
