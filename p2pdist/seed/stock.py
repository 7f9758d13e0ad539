"""What a distribution point holds on its disk for its scope.

The admin server says what the scope needs; the signed grant and the configuration say how much space
there is; :func:`p2pdist.core.storage.plan_storage` decides; here it is carried out.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from p2pdist import limits
from p2pdist.core.storage import Held, StoragePlan, plan_storage
from p2pdist.errors import Unavailable
from p2pdist.files import storage_error
from p2pdist.ids import InfoHash, TargetPath
from p2pdist.logs import get_logger
from p2pdist.node.deltas import Deltas
from p2pdist.node.home import Home
from p2pdist.trust.catalog import Catalog, Release, SeedGrant
from p2pdist.wire.messages import DesiredState

_log = get_logger()

_RESERVE_BYTES = 1 * limits.GIB  # left free on the disk, or a twentieth of a small one
_AGAIN_FIRST_S, _AGAIN_MAX_S = 2.0, 120.0


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What decides on a point's disk.

    Attributes:
        desired: The admin server's wishes.
        catalog: What is signed; a target that is not in it is not held.
        grant: This point's valid grant; without one it holds nothing for others.
        own: Artifacts that the point itself installs; they are never evicted here.
    """

    desired: DesiredState
    catalog: Catalog
    grant: SeedGrant | None
    own: frozenset[InfoHash]


class StockStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a stock holds in memory: the artifacts whose last use it remembers, and those without room."""

    remembered: int
    refused: int


class Stock:
    """The artifacts that a point holds for others.

    Args:
        quota_bytes: The configuration's limit; the grant's applies too, the lower counts; 0 is none.
        situation: Returns what counts now; None while nothing is known.
    """

    def __init__(
        self,
        home: Home,
        content: Deltas,
        *,
        quota_bytes: int,
        situation: Callable[[], Situation | None],
    ) -> None:
        self._home = home
        self._content = content
        self._quota_bytes = quota_bytes
        self._situation = situation
        self._due = trio.Event()
        self._signed: frozenset[InfoHash] = frozenset()
        self._used: dict[InfoHash, int] = {}
        self._failed = False
        self._needed: frozenset[InfoHash] = frozenset()
        self.refused: dict[InfoHash, str] = {}

    def needs(self, info_hash: InfoHash) -> bool:
        """Whether the scope needs this artifact from here."""
        return info_hash in self._needed

    def used(self, info_hash: InfoHash) -> None:
        """A device asked for this artifact just now. What nobody has signed is of no interest."""
        if info_hash in self._signed:
            self._used[info_hash] = int(time.time())

    def statistics(self) -> StockStatistics:
        """Count what is remembered."""
        return StockStatistics(remembered=len(self._used), refused=len(self.refused))

    def look(self) -> None:
        """The situation or the disk has changed: :meth:`run` looks at both again."""
        self._due.set()

    async def run(self) -> None:
        """Bring the disk to what is wanted, whenever that changes, until cancelled.

        Nothing says when a disk has room or works again: while something is refused for want of room, or
        the disk fails, it is looked at again by itself, more and more rarely.
        """
        again_s = _AGAIN_FIRST_S
        while True:
            with trio.move_on_after(again_s if self.refused or self._failed else math.inf) as scope:
                await self._due.wait()
            again_s = min(_AGAIN_MAX_S, again_s * 2) if scope.cancelled_caught else _AGAIN_FIRST_S
            self._due = trio.Event()
            situation = self._situation()
            if situation is None:
                continue
            try:
                await self._follow(situation)
            except Unavailable as error:
                self._failed = True
                _log.warning("stock.disk_failed", reason=str(error))
            else:
                self._failed = False

    async def _follow(self, situation: Situation) -> None:
        catalog, own = situation.catalog, situation.own
        releases = {InfoHash(r.info_hash): r for r in catalog.contents()}
        self._signed = frozenset(releases)
        self._used = {h: at for h, at in self._used.items() if h in self._signed}
        granted = situation.grant is not None
        needed = self._releases(situation.desired.prefetch, catalog) if granted else []
        keep = self._releases(situation.desired.keep, catalog) if granted else []
        if not catalog.roles_left_out:  # an expired channel comes back, and would cross the WAN again
            await self._drop_unsigned(releases, own)
        plan = await self._plan(situation, needed, keep, self._held(releases, own))
        for info_hash, reason in plan.refused.items():
            if info_hash not in self.refused:
                _log.warning("stock.no_room", target=releases[info_hash].target, reason=reason)
        for info_hash in self.refused:
            if info_hash in releases and info_hash not in plan.refused:
                _log.info("stock.has_room", target=releases[info_hash].target)
        self.refused = dict(plan.refused)
        self._needed = frozenset(r.info_hash for r in (*needed, *keep)) - frozenset(plan.refused)
        leaving = dict.fromkeys([*plan.evict, *(h for h in plan.refused if h not in own)])
        for info_hash in leaving:
            if info_hash in plan.evict:
                _log.info("stock.evicted", info_hash=info_hash)
            self._used.pop(info_hash, None)
            await self._content.drop(info_hash, delete=True)
        self._content.set_no_room(frozenset(plan.refused))
        for release in needed:
            if release.info_hash not in leaving and release.info_hash not in plan.refused:
                self._content.want(release)
        for info_hash, release in releases.items():
            if info_hash not in leaving and self._home.artifact(info_hash).exists() and granted:
                self._content.want(release)

    async def _plan(
        self, situation: Situation, needed: list[Release], keep: list[Release], held: list[Held]
    ) -> StoragePlan:
        room = await trio.to_thread.run_sync(_room_bytes, self._home.artifacts)
        granted = situation.grant.disk_bytes if situation.grant is not None else 0
        return plan_storage(
            needed=[(r.info_hash, r.length) for r in needed],
            keep=[r.info_hash for r in keep],
            held=held,
            quota_bytes=min(quota for quota in (self._quota_bytes, granted, room) if quota),
        )

    async def _drop_unsigned(self, releases: dict[InfoHash, Release], own: frozenset[InfoHash]) -> None:
        """What is no longer signed is of no use to anybody."""
        for path in _entries(self._home.artifacts):
            info_hash = InfoHash(path.name)
            if info_hash not in releases and info_hash not in own:
                _log.info("stock.no_longer_signed", info_hash=info_hash)
                await self._content.drop(info_hash, delete=True)

    def _releases(self, targets: list[str], catalog: Catalog) -> list[Release]:
        """What is signed of these targets: the artifacts, and after all of them the deltas."""
        named = (catalog.releases.get(TargetPath(target)) for target in targets)
        found = [release for release in named if release is not None]
        return found + [each for release in found for each in release.contents() if each != release]

    def _held(self, releases: dict[InfoHash, Release], own: frozenset[InfoHash]) -> list[Held]:
        held = []
        for path in _entries(self._home.artifacts):
            release = releases.get(InfoHash(path.name))
            if release is not None and release.info_hash not in own:
                used = self._used.get(release.info_hash, 0)
                held.append(Held(info_hash=release.info_hash, length=release.length, used=used))
        return held


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError as error:
        raise storage_error(f"{directory} could not be read", error) from error


def _room_bytes(directory: Path) -> int:
    """How much a directory may hold so that its disk keeps some space free for everything else."""
    held = 0
    try:
        disk = shutil.disk_usage(directory)
        for path in directory.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was deleted meanwhile
                held += path.stat().st_blocks * 512
    except OSError as error:
        raise storage_error(f"{directory} could not be read", error) from error
    reserve = min(_RESERVE_BYTES, disk.total // 20)
    return max(1, held + disk.free - reserve)
