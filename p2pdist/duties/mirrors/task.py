"""The work of reading releases from their mirrors, one after the other in the same order on every node."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pdist import limits
from p2pdist.core.mirrors import MirrorStatistics
from p2pdist.duties.mirrors.http import MirrorClient, open_client
from p2pdist.duties.mirrors.reader import Wanted, WasRead, read_artifact
from p2pdist.duties.repository import Place, Repository
from p2pdist.duties.run import Ended, RunPort
from p2pdist.errors import P2PDistError, Unavailable, UsageError
from p2pdist.ids import NodeId
from p2pdist.trust.catalog import Release
from p2pdist.wire.mirroring import ReadMirrors
from p2pdist.wire.tasks import ItemState, Outcome, TaskItem

_LOOK_S: Final = 0.5
_WRITTEN_LOOK_S: Final = 0.05
_WRITTEN_S: Final = 60.0  # from the last byte until it is on the disk: 7 MiB may be in memory
_PASSED_ON_S: Final = 600.0  # without a byte, for a node that reads nothing: its readers may begin later
_RATE_S: Final = 5.0  # over which the rate is measured
_SUBJECT_CHARS: Final = 255


async def read_mirrors(work: ReadMirrors, port: RunPort, repository: Repository) -> Ended:
    """Get the releases that *work* names, and serve them to others meanwhile and afterwards.

    Cancellation leaves what was read in the node's swarm.

    Raises:
        UsageError: nothing of it is signed, or the node's settings make no sense.
        Unavailable: a file that the settings name cannot be read.
    """
    chosen = await repository.choose(work.targets)
    if not chosen.releases:
        raise UsageError(f"no signed release is {', '.join(chosen.unknown)[:200]}")
    for target in chosen.unknown:
        await port.item(_item(target, "failed", detail="this node knows no signed release that is it"))
    for release in chosen.releases:
        await port.item(_item(release.target, "waiting", size_bytes=release.length))
    run = _Run(work, port, repository, sum(release.length for release in chosen.releases))
    async with open_client(repository.settings) as client:
        for release in chosen.releases:
            await run.get(release, client)
    return run.ended(failed=len(chosen.unknown))


@dataclass(slots=True)
class _Rate:
    """How fast bytes have come lately. Monotonic seconds."""

    samples: list[tuple[float, int]] = field(default_factory=list)

    def sample(self, now: float, count: int) -> int:
        """Take in how many there are; return bytes per second."""
        self.samples.append((now, count))
        while len(self.samples) > 2 and now - self.samples[0][0] > _RATE_S:
            del self.samples[0]
        began, before = self.samples[0]
        return max(0, int((count - before) / (now - began))) if now > began else 0


class _Run:
    """One run: what has come of its releases so far."""

    def __init__(self, work: ReadMirrors, port: RunPort, repository: Repository, total: int) -> None:
        self._work = work
        self._port = port
        self._repository = repository
        self._total = total
        self._passed = 0
        """Bytes of the releases that are dealt with."""
        self._figures: Counter[str] = Counter(artifacts=0, failed=0, bytes_from_mirrors=0, bytes_from_nodes=0)
        self._reason = ""
        self._rate = _Rate()

    async def get(self, release: Release, client: MirrorClient) -> None:
        """Get one release, and say what came of it."""
        await self._port.item(_item(release.target, "running", size_bytes=release.length))
        self._figures["artifacts"] += 1
        try:
            detail = await self._get(release, client)
        except P2PDistError as error:
            self._figures["failed"] += 1
            self._reason = self._reason or f"{release.target}: {error.what}"
            item = _item(release.target, "failed", detail=str(error), size_bytes=release.length)
        else:
            item = _item(release.target, "done", detail=detail, size_bytes=release.length)
        self._passed += release.length
        await self._port.item(item)

    def ended(self, *, failed: int) -> Ended:
        """Return how the run has ended; *failed* targets name no release."""
        bad = self._figures["failed"] + failed
        reason = self._reason or (f"{failed} targets are not signed" if failed else "")
        if not bad:
            return Ended(figures=self._figures)
        outcome: Outcome = "partly" if self._figures["artifacts"] > self._figures["failed"] else "failed"
        return Ended(outcome=outcome, reason=reason, figures=self._figures)

    async def _get(self, release: Release, client: MirrorClient) -> str:
        """Get one release; return how, in words. Raises P2PDistError when it does not come."""
        if not release.mirrors:
            raise UsageError("it names no mirrors", hint="p2pdist-sign add --mirror names them")
        self._progress(release, 0, "takes part in its swarm")
        async with self._repository.open(release) as place:
            if place.complete:
                return "it was here already"
            before = self._from_nodes(place)
            if self._reads:
                was_read = await self._read(release, place, client)
                detail = f"{was_read.pieces.read} of {was_read.pieces.pieces} pieces from mirrors"
                if was_read.pieces.repeated:
                    detail += f", {was_read.pieces.repeated} of them had come from other nodes meanwhile"
                failure = "" if was_read.complete else was_read.reason
            else:
                failure, detail = await self._wait_passed_on(release, place), "all of it from other nodes"
            self._figures["bytes_from_nodes"] += self._from_nodes(place) - before
            if failure:
                raise Unavailable(failure)
            await self._wait_written(place)
        return detail

    @property
    def _reads(self) -> bool:
        """Whether this node asks mirrors itself."""
        if not self._repository.dials:
            return False
        return self._work.share == "site" or self._repository.node in self._work.readers

    async def _read(self, release: Release, place: Place, client: MirrorClient) -> WasRead:
        wanted = Wanted(
            artifact=place.artifact,
            mirrors=release.mirrors,
            own=self._repository.node,
            readers=tuple(map(NodeId, self._work.readers)) if self._work.share == "fleet" else (),
            region=self._repository.settings.region,
        )

        def told(now: WasRead) -> None:
            held = release.length * now.pieces.held // now.pieces.pieces
            silent = all(mirror.failures and not mirror.received for mirror in now.mirrors)
            step = f"no mirror gives anything: {now.mirrors[0].reason}" if silent else "reads from mirrors"
            self._progress(release, held, step)

        was_read = await read_artifact(wanted, self._repository.swarm, client, progress=told)
        for mirror in was_read.mirrors:
            self._figures["bytes_from_mirrors"] += mirror.received
            self._figures["mirrors_dropped"] += mirror.dropped
            await self._port.item(_mirror_item(mirror))
        return was_read

    async def _wait_passed_on(self, release: Release, place: Place) -> str:
        """Wait until others have passed on all of it; return why not, or nothing."""
        have, moved_at = -1, trio.current_time()
        while True:
            statistics, now = self._repository.swarm.statistics(place.artifact.info_hash), trio.current_time()
            self._progress(release, statistics.bytes_done, "waits for those who read from mirrors")
            if statistics.complete:
                return ""
            if statistics.have != have:
                have, moved_at = statistics.have, now
            elif now - moved_at >= _PASSED_ON_S:
                why = "it may dial nobody" if not self._repository.dials else "it is not among the readers"
                return f"{why}, so it reads no mirror, and no other node has passed on anything for long"
            await trio.sleep(_LOOK_S)

    async def _wait_written(self, place: Place) -> None:
        """Wait until all of it is on the disk. Raises Unavailable."""
        with trio.move_on_after(_WRITTEN_S):
            while not self._repository.swarm.statistics(place.artifact.info_hash).complete:
                await trio.sleep(_WRITTEN_LOOK_S)
            return
        raise Unavailable("all of it has come, but the disk does not take it")

    def _from_nodes(self, place: Place) -> int:
        """How many bytes have come from nodes of the fleet since the artifact was taken in."""
        sources = self._repository.swarm.statistics(place.artifact.info_hash).sources
        return sum(source.received for source in sources if source.role != "mirror")

    def _progress(self, release: Release, held: int, step: str) -> None:
        done = self._passed + held
        rate = self._rate.sample(trio.current_time(), done)
        self._port.progress(f"{release.target}: {step}", done=done, total=self._total, rate_bytes_per_s=rate)


def _item(target: str, state: ItemState, *, detail: str = "", size_bytes: int = 0) -> TaskItem:
    return TaskItem(
        subject=_subject(target),
        state=state,
        detail=detail[: limits.TASK_DETAIL_CHARS_MAX],
        size_bytes=size_bytes,
    )


def _mirror_item(mirror: MirrorStatistics) -> TaskItem:
    """What came of a mirror: its address is the subject, its bytes are the size."""
    step = "used" if mirror.received else "not used"
    if mirror.dropped:
        step = "lied" if mirror.lied else "dropped"
    failures = f"failed {mirror.failures} times, last: " if mirror.failures and not mirror.dropped else ""
    return TaskItem(
        subject=_subject(mirror.url),
        state="failed" if mirror.dropped else "done" if mirror.received else "skipped",
        step=step,
        detail=(failures + mirror.reason)[: limits.TASK_DETAIL_CHARS_MAX],
        size_bytes=mirror.received,
    )


def _subject(text: str) -> str:
    """Return a name that fits: of a long one its beginning and its end."""
    if len(text) <= _SUBJECT_CHARS:
        return text
    return f"{text[:120]}...{text[-130:]}"
