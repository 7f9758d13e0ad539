"""Fetching releases by deltas, in front of :class:`~p2pdist.node.content.Content`.

Who wants a release wants its artifact, here as there. If a delta helps, the delta is fetched first; a process
makes the artifact from it and the older one (:mod:`p2pdist.install.patching`), which then is content that is
complete already: checked piece by piece, served, verified before it is installed. Whatever goes wrong on the
way, the artifact is fetched whole, and :meth:`Deltas.note` says why. A delta is served with its release.

Nothing is remembered on the disk but the files themselves: after a crash at any moment the same begins again,
with a delta that is there already, or with an artifact that is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from p2pdist import limits
from p2pdist.core.deltas import choose_delta
from p2pdist.errors import P2PDistError, Unavailable
from p2pdist.files import storage_error, sync_directory
from p2pdist.ids import InfoHash
from p2pdist.install.packing import PACKINGS
from p2pdist.install.patch import Patch
from p2pdist.install.patching import apply_in_process
from p2pdist.logs import get_logger
from p2pdist.node.content import Content
from p2pdist.node.home import Home
from p2pdist.swarm.session import ArtifactStatistics
from p2pdist.trust.catalog import Delta, Release
from p2pdist.wire.messages import ContentReport

_log = get_logger()

_LOOK_EVERY_S = 1.0
_AVAILABLE = re.compile(r"^MemAvailable:\s+([0-9]+) kB$", re.MULTILINE)


class _Fetch(msgspec.Struct, kw_only=True):
    """A release on its way by a delta. ``moved`` is when bytes came last, in seconds of trio's clock."""

    release: Release
    delta: Delta
    done: int = 0
    moved: float


class Deltas:
    """The content of one node, fetched by deltas where they help.

    Args:
        home: The node's directory.
        content: Its content.
        keeps: Whether somebody else on this node (a distribution point's stock) needs an artifact.
        point: Whether this is a distribution point: it may be told to read a release whole from its mirrors.
        apply: Applies a delta.
        free_bytes: Returns the memory that applying one may take.
    """

    def __init__(
        self,
        home: Home,
        content: Content,
        *,
        keeps: Callable[[InfoHash], bool] = lambda info_hash: False,
        point: bool = False,
        apply: Callable[[Patch], Awaitable[None]] = apply_in_process,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._home = home
        self._content = content
        self._keeps = keeps
        self._point = point
        self._apply = apply
        self._free_bytes = free_bytes or _available_bytes
        self._fetches: dict[InfoHash, _Fetch] = {}
        self._served: dict[InfoHash, list[InfoHash]] = {}
        self._notes: dict[InfoHash, str] = {}
        self._tried: set[InfoHash] = set()
        self._due = trio.Event()

    def want(self, release: Release) -> None:
        """Fetch a release's artifact, by a delta or whole, or go on serving it. Returns at once."""
        info_hash = release.info_hash
        if info_hash in self._fetches:
            self._fetches[info_hash].release = release
            return
        begun = info_hash in self._content.wanted() or self._home.artifact(info_hash).exists()
        delta = None if begun or info_hash in self._tried else self._choose(release)
        if delta is None:
            self._content.want(release)
            if release.deltas and info_hash not in self._served:
                self._serve(release)
            return
        _log.info("delta.fetching", target=release.target, bytes=delta.length, instead_of=release.length)
        self._fetches[info_hash] = _Fetch(release=release, delta=delta, moved=trio.current_time())
        self._content.want(release.carried_by(delta))
        self._due.set()

    async def drop(self, info_hash: InfoHash, *, delete: bool) -> None:
        """Leave an artifact's swarm, and those of its deltas; with *delete*, free its disk space too.

        Raises:
            Unavailable: the disk does not let it go. The swarm is left, and it may be dropped again.
        """
        fetch = self._fetches.pop(info_hash, None)
        deltas = self._served.pop(info_hash, [])
        deltas += [InfoHash(fetch.delta.info_hash)] if fetch is not None else []
        if delete:
            self._notes.pop(info_hash, None)
            self._tried.discard(info_hash)
        for each in deltas:
            if not self._keeps(each):
                await self._content.drop(each, delete=delete)
        await self._content.drop(info_hash, delete=delete)

    async def restart(self, info_hash: InfoHash) -> None:
        """Fetch an artifact from nothing, whole: what is on the disk turned out to be bad.

        Raises:
            Unavailable: the disk does not let it go. It is wanted again, and what is there is checked.
        """
        self._tried.add(info_hash)
        await self._content.restart(info_hash)

    def set_no_room(self, info_hashes: frozenset[InfoHash]) -> None:
        """Say what this node should hold for others and cannot, for want of room."""
        self._content.set_no_room(info_hashes)

    def statistics(self, info_hash: InfoHash) -> ArtifactStatistics | None:
        """Return how far an artifact, or the delta for it, is; None before its swarm is joined."""
        fetch = self._fetches.get(info_hash)
        if fetch is None:
            return self._content.statistics(info_hash)
        found = self._content.statistics(InfoHash(fetch.delta.info_hash))
        return None if found is None else msgspec.structs.replace(found, complete=False)

    def report(self, info_hash: InfoHash) -> ContentReport | None:
        """Return what is known of the sources of an artifact, or of the delta that is fetched for it."""
        fetch = self._fetches.get(info_hash)
        return self._content.report(InfoHash(fetch.delta.info_hash) if fetch is not None else info_hash)

    def note(self, info_hash: InfoHash) -> str:
        """Say how an artifact was fetched, for people; empty if there is nothing to be said."""
        return self._notes.get(info_hash, "")

    def whole(self, info_hash: InfoHash) -> InfoHash:
        """Return the artifact that is being made from a delta; another one is returned as it is."""
        for artifact, fetch in self._fetches.items():
            if fetch.delta.info_hash == info_hash:
                return artifact
        return info_hash

    def finished(self) -> None:
        """Something is complete on the disk: :meth:`run` looks whether it is a delta."""
        self._due.set()

    async def storage_failed(self, info_hash: InfoHash, reason: str) -> bool:
        """The disk does not take an artifact; return whether it is a delta that something is made from."""
        artifact = self.whole(info_hash)
        if artifact == info_hash:
            return False
        await self._give_up(artifact, reason)
        return True

    async def run(self) -> None:
        """Make artifacts from the deltas that are complete, one after another, until cancelled."""
        await trio.to_thread.run_sync(self._tidy)
        while True:
            with trio.move_on_after(_LOOK_EVERY_S if self._fetches else math.inf):
                await self._due.wait()
            self._due = trio.Event()
            for info_hash, fetch in list(self._fetches.items()):
                if self._fetches.get(info_hash) is fetch:
                    await self._look_at(info_hash, fetch)

    async def _look_at(self, info_hash: InfoHash, fetch: _Fetch) -> None:
        found = self._content.statistics(InfoHash(fetch.delta.info_hash))
        if found is not None and found.complete:
            await self._make(info_hash, fetch)
            return
        if found is not None and (found.bytes_done > fetch.done or found.rate_down):
            fetch.done, fetch.moved = found.bytes_done, trio.current_time()
        if trio.current_time() >= fetch.moved + limits.DELTA_PATIENCE_S:
            await self._give_up(info_hash, f"nothing of it came for {limits.DELTA_PATIENCE_S:.0f} s")

    async def _make(self, info_hash: InfoHash, fetch: _Fetch) -> None:
        release, delta, artifact = fetch.release, fetch.delta, self._home.artifact(info_hash)
        result = self._scratch / info_hash
        patch = Patch(
            base=str(self._home.artifact(InfoHash(delta.base))),
            delta=str(self._home.artifact(InfoHash(delta.info_hash))),
            result=str(result),
            how=delta,
            length=release.length,
            sha256=release.sha256,
        )
        try:
            await self._apply(patch)
            if self._fetches.get(info_hash) is not fetch:  # nobody wants it any more
                await trio.to_thread.run_sync(lambda: result.unlink(missing_ok=True))
                return
            await trio.to_thread.run_sync(_move, result, artifact)
        except P2PDistError as error:
            if self._fetches.get(info_hash) is fetch:
                await self._give_up(info_hash, error.what)
            return
        del self._fetches[info_hash]
        self._served[info_hash] = [InfoHash(delta.info_hash)]
        self._notes[info_hash] = f"by a delta of {delta.length} bytes instead of {release.length}"
        _log.info("delta.applied", target=release.target, saved_bytes=release.length - delta.length)
        self._content.want(release)

    async def _give_up(self, info_hash: InfoHash, reason: str) -> None:
        fetch = self._fetches.pop(info_hash)
        _log.warning("delta.not_used", target=fetch.release.target, reason=reason)
        self._tried.add(info_hash)
        self._notes[info_hash] = f"fetched whole, the delta was not used: {reason}"
        delta = InfoHash(fetch.delta.info_hash)
        self._content.want(fetch.release)
        if not self._keeps(delta):
            try:
                await self._content.drop(delta, delete=True)
            except Unavailable as error:  # it costs space, and nothing else
                _log.warning("delta.not_deleted", info_hash=delta, reason=str(error))

    def _choose(self, release: Release) -> Delta | None:
        if not release.deltas or (self._point and release.mirrors):
            return None
        return choose_delta(release, has=self._has_base, packings=PACKINGS, free_bytes=self._free_bytes())

    def _has_base(self, delta: Delta) -> bool:
        base = InfoHash(delta.base)
        found = self._content.statistics(base)
        if found is not None:
            return found.complete
        path = self._home.artifact(base)  # not in the swarm any more, or not yet
        return path.exists() and path.stat().st_size == delta.base_length

    def _serve(self, release: Release) -> None:
        """Serve the deltas that an earlier life has used."""
        deltas = [d for d in release.deltas if self._home.artifact(InfoHash(d.info_hash)).exists()]
        self._served[release.info_hash] = [InfoHash(delta.info_hash) for delta in deltas]
        for delta in deltas:
            self._content.want(release.carried_by(delta))

    @property
    def _scratch(self) -> Path:
        return self._home.state / "deltas"

    def _tidy(self) -> None:
        try:
            self._scratch.mkdir(exist_ok=True)
            for leftover in self._scratch.iterdir():
                leftover.unlink()
        except OSError as error:
            _log.warning(
                "delta.not_tidied", reason=str(storage_error(f"{self._scratch} is not empty", error))
            )


def _move(result: Path, artifact: Path) -> None:
    try:
        result.replace(artifact)
        sync_directory(artifact.parent)
    except OSError as error:
        raise storage_error(f"{artifact} could not be written", error) from error


def _available_bytes() -> int:
    """Return how much memory programs may take on this machine without others being put aside."""
    try:
        found = _AVAILABLE.search(Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return int(found[1]) * limits.KIB if found is not None else 0
