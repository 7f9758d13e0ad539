"""What a distribution point holds on its disk for its scope.

The admin server says what the scope needs; the signed grant and the configuration say how much space
there is; :func:`p2pdist.core.storage.plan_storage` decides; here it is carried out.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import trio

from p2pdist import limits
from p2pdist.core.storage import Held, plan_storage
from p2pdist.ids import InfoHash, TargetPath
from p2pdist.logs import get_logger
from p2pdist.node.content import Content
from p2pdist.node.home import Home
from p2pdist.trust.catalog import Catalog, Release, SeedGrant
from p2pdist.wire.messages import DesiredState

_log = get_logger()

_RESERVE_BYTES = 1 * limits.GIB  # left free on the disk, or a twentieth of a small one


class Stock:
    """The artifacts that a point holds for others.

    Args:
        quota_bytes: The configuration's limit; the grant's applies too, the lower counts; 0 is none.
    """

    def __init__(self, home: Home, content: Content, *, quota_bytes: int) -> None:
        self._home = home
        self._content = content
        self._quota_bytes = quota_bytes
        self._used: dict[InfoHash, int] = {}
        self._needed: frozenset[InfoHash] = frozenset()
        self.refused: dict[InfoHash, str] = {}

    def needs(self, info_hash: InfoHash) -> bool:
        """Whether the scope needs this artifact from here."""
        return info_hash in self._needed

    def used(self, info_hash: InfoHash) -> None:
        """A device asked for this artifact just now."""
        self._used[info_hash] = int(time.time())

    async def follow(
        self, desired: DesiredState, catalog: Catalog, grant: SeedGrant | None, own: frozenset[InfoHash]
    ) -> None:
        """Bring the disk to what is wanted now.

        Args:
            desired: The admin server's wishes.
            catalog: What is signed; a target that is not in it is not held.
            grant: This point's valid grant; without one it holds nothing for others.
            own: Artifacts that the point itself installs; they are never evicted here.
        """
        releases = {InfoHash(r.info_hash): r for r in catalog.releases.values()}
        needed = self._releases(desired.prefetch, catalog) if grant is not None else []
        keep = self._releases(desired.keep, catalog) if grant is not None else []
        await self._drop_unsigned(releases, own)
        room = await trio.to_thread.run_sync(_room_bytes, self._home.artifacts)
        quotas = [q for q in (self._quota_bytes, grant.disk_bytes if grant else 0, room) if q]
        plan = plan_storage(
            needed=[(r.info_hash, r.length) for r in needed],
            keep=[r.info_hash for r in keep],
            held=self._held(releases, own),
            quota_bytes=min(quotas),
        )
        self.refused = dict(plan.refused)
        self._needed = frozenset(r.info_hash for r in (*needed, *keep)) - frozenset(plan.refused)
        for info_hash, reason in plan.refused.items():
            _log.warning("stock.no_room", target=releases[info_hash].target, reason=reason)
        for info_hash in plan.evict:
            _log.info("stock.evicted", info_hash=info_hash)
            self._used.pop(info_hash, None)
            await self._content.drop(info_hash, delete=True)
        evicted = set(plan.evict)
        for release in (*needed, *keep):
            if release.info_hash not in evicted and release.info_hash not in plan.refused:
                self._content.want(release)
        for info_hash, release in releases.items():
            if info_hash not in evicted and self._home.artifact(info_hash).exists() and grant is not None:
                self._content.want(release)

    async def _drop_unsigned(self, releases: dict[InfoHash, Release], own: frozenset[InfoHash]) -> None:
        """What is no longer signed is of no use to anybody."""
        for path in sorted(self._home.artifacts.iterdir()):
            info_hash = InfoHash(path.name)
            if info_hash not in releases and info_hash not in own:
                _log.info("stock.no_longer_signed", info_hash=info_hash)
                await self._content.drop(info_hash, delete=True)

    def _releases(self, targets: list[str], catalog: Catalog) -> list[Release]:
        found = (catalog.releases.get(TargetPath(target)) for target in targets)
        return [release for release in found if release is not None]

    def _held(self, releases: dict[InfoHash, Release], own: frozenset[InfoHash]) -> list[Held]:
        held = []
        for path in sorted(self._home.artifacts.iterdir()):
            release = releases.get(InfoHash(path.name))
            if release is not None and release.info_hash not in own:
                used = self._used.get(release.info_hash, 0)
                held.append(Held(info_hash=release.info_hash, length=release.length, used=used))
        return held


def _room_bytes(directory: Path) -> int:
    """How much a directory may hold so that its disk keeps some space free for everything else."""
    disk = shutil.disk_usage(directory)
    held = sum(path.stat().st_blocks * 512 for path in directory.iterdir())
    reserve = min(_RESERVE_BYTES, disk.total // 20)
    return max(1, held + disk.free - reserve)
