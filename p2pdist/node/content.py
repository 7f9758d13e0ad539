"""Artifacts on a node: wanted, fetched in the swarm, served, forgotten.

An artifact passes through: *wanted* (somebody named its release) → *joined* (its torrent is on the
disk, checked against the signed info-hash, and the swarm has it) → *complete*. A complete artifact is
served until it is dropped. Everything here can be repeated after a crash: the torrent and the content
are on the disk, and libtorrent verifies what is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import trio

from p2pdist import limits
from p2pdist.core.sources import crosses_wan
from p2pdist.errors import P2PDistError, Unavailable
from p2pdist.files import storage_error, write_atomic
from p2pdist.ids import InfoHash, NodeId, swarm_of
from p2pdist.logs import get_logger
from p2pdist.node.home import Home
from p2pdist.node.summoned import Summoned
from p2pdist.swarm.session import Artifact, ArtifactStatistics, Source, Swarm
from p2pdist.swarm.torrents import check_torrent
from p2pdist.trust.catalog import Release
from p2pdist.wire.frames import Candidate, Presence, Role, Sources
from p2pdist.wire.messages import ContentReport, SourceBytes
from p2pdist.wire.requests import Torrent, TorrentRequest

_log = get_logger()

_RETRY_S = 2.0

AskTorrent = Callable[[TorrentRequest], Awaitable[Torrent]]
JudgeSource = Callable[[Candidate], str | None]


class _Wanted(msgspec.Struct, kw_only=True):
    release: Release
    joined: bool = False
    told: tuple[Candidate, ...] = ()
    """What the tracker decided; with this node's own judgement they are the candidates."""
    candidates: tuple[Candidate, ...] = ()
    below: tuple[Candidate, ...] = ()
    """Points below this one that have to be dialled so that they can fetch the artifact from here."""
    dialled: frozenset[str] | None = None
    """The nodes that this one dials; None until the first decision of the present tracker is here."""


class Content:
    """The artifacts of one node.

    Args:
        home: The node's directory.
        swarm: The node's swarm session.
        role: What the node is.
        ask: Asks the present neighbour for a torrent; may raise any project error.
        judge: Looks at a source that the tracker took; returns why this node refuses it, or None.
        alternative: Whether another node is a distribution point of the same scope as this one.
        dials: Whether this node dials others for content.
        way: Returns where a source is to be dialled.
        on_change: Called when what the node takes part in has changed, so that it is announced.

    Attributes:
        summoned: Follows the neighbour above where others cannot be dialled.
    """

    def __init__(
        self,
        home: Home,
        swarm: Swarm,
        *,
        role: Role,
        ask: AskTorrent,
        judge: JudgeSource,
        alternative: Callable[[NodeId], bool],
        way: Callable[[Candidate], tuple[str, int]],
        on_change: Callable[[], None],
        dials: Callable[[], bool] = lambda: True,
    ) -> None:
        self._home = home
        self._swarm = swarm
        self._role = role
        self._ask = ask
        self._judge = judge
        self._alternative = alternative
        self._dials = dials
        self._way = way
        self._on_change = on_change
        self._wanted: dict[InfoHash, _Wanted] = {}
        self._no_room: frozenset[InfoHash] = frozenset()
        self.summoned = Summoned(home.node, swarm, self._called_for)
        self._pending = trio.Event()
        self._joined = trio.Event()

    def want(self, release: Release) -> None:
        """Fetch *release*'s artifact, or go on serving it. Returns at once; the work is in :meth:`run`."""
        if release.info_hash in self._wanted:
            self._wanted[release.info_hash].release = release
            return
        self._wanted[release.info_hash] = _Wanted(release=release)
        self.retry()

    async def drop(self, info_hash: InfoHash, *, delete: bool) -> None:
        """Leave an artifact's swarm; with *delete*, free its disk space too.

        Raises:
            Unavailable: the disk does not let it go. The swarm is left, and it may be dropped again.
        """
        wanted = self._wanted.pop(info_hash, None)
        if wanted is not None and wanted.joined:
            await self._swarm.remove(info_hash, delete=delete)
        try:
            if delete:
                await trio.to_thread.run_sync(self._delete, info_hash)
        finally:
            if wanted is not None:
                self._on_change()

    async def restart(self, info_hash: InfoHash) -> None:
        """Fetch an artifact from nothing: what is on the disk turned out to be bad.

        Raises:
            Unavailable: the disk does not let it go. It is wanted again, and what is there is checked.
        """
        wanted = self._wanted.get(info_hash)
        if wanted is None:
            return
        release = wanted.release
        try:
            await self.drop(info_hash, delete=True)
        finally:
            self.want(release)

    def retry(self) -> None:
        """Look again at what is wanted and not joined: a link is up, or the disk has space."""
        self._pending.set()

    def set_no_room(self, info_hashes: frozenset[InfoHash]) -> None:
        """Say what this node should hold for others and cannot, for want of room: it is announced so."""
        if info_hashes != self._no_room:
            self._no_room = info_hashes
            self._on_change()

    def wanted(self) -> Mapping[InfoHash, Release]:
        """Return every artifact that the node takes part in or is about to."""
        return {info_hash: wanted.release for info_hash, wanted in self._wanted.items()}

    def statistics(self, info_hash: InfoHash) -> ArtifactStatistics | None:
        """Return how far an artifact is; None before its swarm is joined."""
        wanted = self._wanted.get(info_hash)
        return self._swarm.statistics(info_hash) if wanted is not None and wanted.joined else None

    def unfinished(self) -> Mapping[InfoHash, int]:
        """Return how many bytes are here of each artifact that is being fetched."""
        found = {info_hash: self.statistics(info_hash) for info_hash in self._wanted}
        return {i: each.bytes_done for i, each in found.items() if each is not None and not each.complete}

    def is_cut_off(self) -> bool:
        """Whether something is being fetched, and nobody is connected from whom it could come.

        What has mirrors, and nobody in the fleet to come from, is no fault of the neighbour that says so.
        """
        found = [self.statistics(i) for i in self.unfinished() if not self._waits_for_mirrors(i)]
        return bool(found) and not any(each is not None and each.peers for each in found)

    def _waits_for_mirrors(self, info_hash: InfoHash) -> bool:
        wanted = self._wanted[info_hash]
        return bool(wanted.release.mirrors) and not any(c.taken for c in wanted.told)

    async def wait_joined(self, info_hash: InfoHash) -> None:
        """Wait until the node takes part in an artifact's swarm."""
        while self.statistics(info_hash) is None:
            await self._joined.wait()

    async def wait_unfinished(self) -> None:
        """Wait until something is being fetched."""
        while not self.unfinished():
            await self._joined.wait()

    def presences(self) -> list[Presence]:
        """Return what to announce."""
        presences = []
        lacking = set(self._no_room)
        for info_hash in self._wanted:
            statistics = self.statistics(info_hash)
            if statistics is not None and (statistics.complete or info_hash not in lacking):
                lacking.discard(info_hash)
                presences.append(
                    Presence(
                        info_hash=info_hash,
                        have=statistics.have,
                        pieces=statistics.pieces,
                        complete=statistics.complete,
                        unreached=[] if statistics.complete else list(statistics.unreached),
                    )
                )
        presences += [
            Presence(info_hash=info_hash, have=0, pieces=0, complete=False, no_room=True)
            for info_hash in sorted(lacking)
        ]
        return presences[: limits.TORRENTS_ACTIVE_MAX]

    def set_sources(self, sources: Sources) -> None:
        """Take in the tracker's decision; this node's own judgement comes on top."""
        wanted = self._wanted.get(InfoHash(sources.info_hash))
        if wanted is None:
            return
        wanted.told = tuple(sources.candidates)
        wanted.candidates = self._judged_all(wanted)
        if wanted.joined:
            self._connect(InfoHash(sources.info_hash), wanted)

    def set_below(self, sources: Sources) -> None:
        """Take in what this node's own tracker decided for it: whom it has to dial, because they cannot."""
        wanted = self._wanted.get(InfoHash(sources.info_hash))
        if wanted is None:
            return
        wanted.below = tuple(c for c in sources.candidates if c.taken and c.dial == "receiver")
        if wanted.joined:
            self._connect(InfoHash(sources.info_hash), wanted)

    def waits_for_calls(self) -> bool:
        """Whether something is being fetched and others have to dial for it."""
        return not self._dials() and bool(self.unfinished())

    def judge_again(self) -> None:
        """This node's own judgement may be another: what is signed has changed, or time has passed."""
        for info_hash, wanted in self._wanted.items():
            before, wanted.candidates = wanted.candidates, self._judged_all(wanted)
            if wanted.joined and wanted.candidates != before:
                self._connect(info_hash, wanted)

    def ways_changed(self) -> None:
        """A source is to be dialled elsewhere than before."""
        for info_hash, wanted in self._wanted.items():
            if wanted.joined:
                self._connect(info_hash, wanted)

    def introduced_anew(self, *, after_silence: bool = False) -> None:
        """The next decision comes from another tracker: dial everybody in it.

        After silence the swarm's connections are likely to be as dead as the link was, and TCP would try for
        about as long again as the silence lasted: they are opened anew at once.
        """
        for wanted in self._wanted.values():
            wanted.dialled = None
        if after_silence:
            self._swarm.reconnect()

    def report(self, info_hash: InfoHash) -> ContentReport | None:
        """Return where an artifact's bytes came from, and every source that was considered."""
        wanted = self._wanted.get(info_hash)
        statistics = self.statistics(info_hash)
        if wanted is None or statistics is None:
            return None
        sources = [
            SourceBytes(node=s.node, role=s.role, received=s.received, sent=s.sent)
            for s in statistics.sources
        ]
        return ContentReport(
            info_hash=info_hash,
            target=wanted.release.target,
            held=statistics.bytes_done,
            unattributed=statistics.unattributed,
            wasted=statistics.wasted_bytes + statistics.refused_bytes,
            sources=sources,
            candidates=[_with_path(each, statistics) for each in wanted.candidates],
        )

    async def run(self) -> None:
        """Join the swarms of what is wanted, until cancelled."""
        while True:
            await self._pending.wait()
            self._pending = trio.Event()
            if not await self._join_all():
                with trio.move_on_after(_RETRY_S):
                    await self._pending.wait()
                self._pending.set()

    async def _join_all(self) -> bool:
        done = True
        for info_hash, wanted in list(self._wanted.items()):
            if wanted.joined or self._wanted.get(info_hash) is not wanted:
                continue
            try:
                await self._join(info_hash, wanted)
            except P2PDistError as error:
                _log.info("content.not_joined", target=wanted.release.target, reason=str(error))
                done = False
        return done

    async def _join(self, info_hash: InfoHash, wanted: _Wanted) -> None:
        release = wanted.release
        swarm = swarm_of(release.channel, self._home.fleet)
        if swarm not in self._home.certificate.swarms:
            raise Unavailable(f"the certificate does not name {swarm} yet")
        torrent = await self._torrent(release)
        if self._wanted.get(info_hash) is not wanted:
            return
        await self._swarm.add(
            Artifact(
                info_hash=info_hash,
                torrent=torrent,
                path=self._home.artifact(info_hash),
                swarm=swarm,
                length=release.length,
                sealed=False,
            )
        )
        wanted.joined = True
        self._joined.set()
        self._joined = trio.Event()
        self._connect(info_hash, wanted)
        self._on_change()

    async def _torrent(self, release: Release) -> bytes:
        path = self._home.torrent(release.info_hash)
        swarm = swarm_of(release.channel, self._home.fleet)
        if path.exists():
            try:
                torrent = await trio.to_thread.run_sync(self._home.read_torrent, release.info_hash)
                check_torrent(torrent, info_hash=release.info_hash, swarm=swarm, length=release.length)
            except P2PDistError as error:
                _log.warning("content.torrent_damaged", target=release.target, reason=str(error))
            else:
                return torrent
        answer = await self._ask(TorrentRequest(info_hash=release.info_hash))
        check_torrent(answer.torrent, info_hash=release.info_hash, swarm=swarm, length=release.length)
        await trio.to_thread.run_sync(write_atomic, path, answer.torrent)
        return answer.torrent

    def _called_for(self, info_hash: InfoHash) -> Sequence[Candidate] | None:
        """Return among whom may be called: only devices call each other."""
        wanted = self._wanted.get(info_hash) if self._role == "device" else None
        return wanted.candidates if wanted is not None else None

    def _judged_all(self, wanted: _Wanted) -> tuple[Candidate, ...]:
        return tuple(self._judged(candidate) for candidate in wanted.told)

    def _judged(self, candidate: Candidate) -> Candidate:
        objection = self._judge(candidate) if candidate.taken else None
        if objection is None:
            return candidate
        return msgspec.structs.replace(candidate, taken=False, reason=objection)

    def _connect(self, info_hash: InfoHash, wanted: _Wanted) -> None:
        """Dial who was there before this node. Who came later dials it: a device only needs to be known, a
        point is dialled too if that takes long.
        """
        taken = [candidate for candidate in wanted.candidates if candidate.taken]
        known = {candidate.node for candidate in taken}
        taken += [candidate for candidate in wanted.below if candidate.node not in known]
        self._swarm.learn([NodeId(candidate.node) for candidate in taken])
        if not wanted.below and not any(candidate.taken for candidate in wanted.told):
            return  # a new tracker that knows of nobody yet: whoever serves goes on
        if wanted.dialled is None:
            wanted.dialled = frozenset(candidate.node for candidate in wanted.told)
        self._swarm.set_sources(
            info_hash,
            [
                Source(
                    node=NodeId(c.node),
                    role=c.role,
                    host=way[0],
                    port=way[1],
                    wan=c.path != "direct"
                    or crosses_wan(self._role, c.role, alternatives=self._alternative(NodeId(c.node))),
                    expected=c.dial == "either" and c.node not in wanted.dialled,
                    dialled=self._dials() and c.dial != "source",
                    path=c.path,
                    endpoints=tuple(c.endpoints),
                )
                for c, way in zip(taken, map(self._way_to, taken), strict=True)
                if c.node in wanted.dialled or c.role != "device" or c.path == "punched"
            ],
            watched=any(candidate.path != "direct" for candidate in wanted.candidates)
            or all(candidate.role == "device" for candidate in taken),
        )

    def _way_to(self, source: Candidate) -> tuple[str, int]:
        """Return where a source is dialled, if it is: who dials nobody does not even look."""
        dialled = self._dials() and source.dial != "source"
        return self._way(source) if dialled else (source.host, source.port)

    def _delete(self, info_hash: InfoHash) -> None:
        for path in (self._home.artifact(info_hash), self._home.torrent(info_hash)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(f"{path} could not be deleted", error) from error


def _with_path(candidate: Candidate, statistics: ArtifactStatistics) -> Candidate:
    """Say of a candidate how it is connected, where that is known: a gateway stays what it is."""
    path = statistics.paths.get(NodeId(candidate.node))
    if path is None or candidate.path == "relayed":
        return candidate
    return msgspec.structs.replace(candidate, path=path)
