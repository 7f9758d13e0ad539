"""The admin server's directory."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded, write_atomic
from p2pdist.ids import FleetName, InfoHash
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey


class ServerHome:
    """The admin server's directory: its identity, the fleet's authority, metadata, torrents, content.

    Raises:
        UsageError: something is missing or damaged there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = IdentityKey.load(root / "identity.key")
        self.authority = FleetAuthority.load(root / "authority")
        self.trusted_root = read_bounded(root / "root.json", bytes_max=limits.ROOT_BYTES_MAX)
        for directory in (self.torrents, self.artifacts):
            directory.mkdir(parents=True, exist_ok=True)

    @classmethod
    def create(cls, root: Path, fleet: FleetName, trusted_root: bytes, now: datetime) -> ServerHome:
        """Make the directory of a new admin server.

        Raises:
            UsageError: there is one already.
        """
        if (root / "identity.key").exists():
            raise UsageError(f"{root} holds an admin server already", hint="choose an empty directory")
        (root / "authority").mkdir(parents=True, exist_ok=True)
        write_atomic(root / "root.json", trusted_root)
        FleetAuthority.create(fleet, now).save(root / "authority")
        IdentityKey.generate().save(root / "identity.key")
        return cls(root)

    @property
    def fleet(self) -> FleetName:
        """The fleet's name."""
        return self.authority.fleet

    @property
    def metadata(self) -> Path:
        """Where signed metadata is kept."""
        return self.root / "metadata"

    @property
    def torrents(self) -> Path:
        """Where torrents are kept."""
        return self.root / "torrents"

    @property
    def artifacts(self) -> Path:
        """Where content is kept, one file per info-hash."""
        return self.root / "artifacts"

    def torrent(self, info_hash: InfoHash) -> Path:
        """Return the torrent file of an artifact."""
        return self.torrents / f"{info_hash}.torrent"

    def artifact(self, info_hash: InfoHash) -> Path:
        """Return the content file of an artifact."""
        return self.artifacts / info_hash

    def read_torrent(self, info_hash: InfoHash) -> bytes | None:
        """Return an artifact's torrent, or None. Blocking."""
        try:
            return self.torrent(info_hash).read_bytes()
        except FileNotFoundError:
            return None
