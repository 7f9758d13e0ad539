"""One libtorrent session as a trio resource."""

from __future__ import annotations

import math
import socket
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import libtorrent as lt
import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, Unavailable, UsageError, sole_error
from p2pdist.ids import InfoHash, NodeId
from p2pdist.swarm.alerts import AlertDesk
from p2pdist.swarm.calls import Calls
from p2pdist.swarm.carried import Carried, addresses, check_content_file, sync_content_file
from p2pdist.swarm.dh import FFDHE2048_PEM
from p2pdist.swarm.division import points_among, priorities
from p2pdist.swarm.feeding import Feeding
from p2pdist.swarm.ledger import NodeBook
from p2pdist.swarm.links import LinkClasses
from p2pdist.swarm.model import (
    Artifact,
    ArtifactFinished,
    ArtifactStatistics,
    ContentAltered,
    PieceRefused,
    ReachChanged,
    Source,
    StorageFailed,
    StrangerRefused,
    SwarmEvent,
)
from p2pdist.swarm.outbox import Outbox
from p2pdist.swarm.parameters import torrent_parameters
from p2pdist.swarm.resting import Resting
from p2pdist.swarm.tuning import SwarmSettings, dialling_settings, parse_host, session_settings
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.messages import RateLimits

__all__ = [
    "Artifact",
    "ArtifactFinished",
    "ArtifactStatistics",
    "ContentAltered",
    "PieceRefused",
    "ReachChanged",
    "Source",
    "StorageFailed",
    "StrangerRefused",
    "Swarm",
    "SwarmEvent",
    "SwarmSettings",
    "open_swarm",
]

POLL_S: Final = 1.0
"""How often rates are asked for while something moves."""

REDIAL_POLLS: Final = 4
"""After so many polls, sources are dialled again where nobody is connected."""

LIBTORRENT_S: Final = 10.0


class Swarm:
    """One node's part in the fleet's swarms. Made by :func:`open_swarm`."""

    def __init__(self, session: lt.session, settings: SwarmSettings) -> None:
        self._session = session
        self._settings = settings
        self._identity = (settings.certificate_pem, settings.key_pem)
        self._book = NodeBook()
        self._links = LinkClasses(session, settings.role)
        self._carried: dict[InfoHash, Carried] = {}
        self._outbox = Outbox()
        self._sync_in, self._sync_out = trio.open_memory_channel[Carried](limits.TORRENTS_ACTIVE_MAX)
        self._resting = Resting(self._carried, self._start_again)
        self._busy, self._listening = trio.Event(), trio.Event()
        self.calls = Calls(session, self._carried, self._book, self._links, self._emit, self._redial)
        self.feeding = Feeding(self._carried, self._links)
        self._desk = AlertDesk(
            book=self._book, emit=self._emit, flushed=self._sync_in.send_nowait, failed=self._resting.add
        )

    @property
    def port(self) -> int:
        """The TCP port that other nodes dial."""
        return self._desk.listening or 0

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it listens, by this machine's own addresses."""
        return tuple(self._desk.endpoints)

    async def add(self, artifact: Artifact) -> None:
        """Take an artifact in: fetch what is missing of it, and serve what is there.

        A partial content file is read through first; nothing on the disk is believed unchecked,
        except that a sealed file is checked piece by piece as it is served. Cancellation leaves
        either nothing or an artifact that :meth:`remove` takes out.

        Raises:
            UsageError: it is in already, or the content file cannot be what it says.
            Unavailable: this node carries as many artifacts as it can.
        """
        if artifact.info_hash in self._carried:
            raise UsageError(f"the artifact {artifact.info_hash} is in the swarm already")
        if len(self._carried) >= limits.TORRENTS_ACTIVE_MAX:
            raise Unavailable(
                f"this node carries {limits.TORRENTS_ACTIVE_MAX} artifacts", hint="remove one first"
            )
        fresh = not await trio.to_thread.run_sync(check_content_file, artifact)
        carried = Carried(artifact, *(await self._start(artifact)), fresh=fresh)
        self._carried[artifact.info_hash] = carried
        self._let_go(carried)

    async def remove(self, info_hash: InfoHash, *, delete: bool) -> None:
        """Take an artifact out, and with *delete* its content file too.

        When this returns, the file is closed and everything fetched so far is in it.

        Raises:
            UsageError: it is not in the swarm.
            Unavailable: libtorrent does not let go of it in time.
        """
        carried = self._find(info_hash)
        try:
            with trio.fail_after(LIBTORRENT_S):
                async with carried.changing:
                    await self._stop(carried)
        except trio.TooSlowError:
            raise Unavailable(
                f"the artifact {info_hash} could not be closed", hint="the disk is too slow"
            ) from None
        finally:
            self._desk.drop(carried)
            self._carried.pop(info_hash, None)
        if delete:
            await trio.to_thread.run_sync(lambda: carried.artifact.path.unlink(missing_ok=True))

    def set_identity(self, certificate_pem: bytes, key_pem: bytes) -> None:
        """Use a renewed certificate for every connection from now on; open ones stay: see `reconnect`."""
        self._identity = (certificate_pem, key_pem)
        for carried in self._carried.values():
            self._certify(carried)

    def set_sources(self, info_hash: InfoHash, sources: Sequence[Source], *, watched: bool = False) -> None:
        """Say whom to fetch an artifact from, replacing what was said before.

        New sources are dialled at once, and again while they do not answer. Connections to those that
        are no longer named are closed. A source that sent wrong bytes is kept out for ten minutes,
        unless it shares its address with others. With *watched*, it is looked at whether they are connected.

        Raises:
            UsageError: the artifact is not in the swarm, or a source is no address.
        """
        carried = self._find(info_hash)
        self._links.lift_bans(trio.current_time())
        wanted = tuple(sources[: limits.CANDIDATES_MAX])
        for source in wanted:
            for host in (source.host, *(endpoint.host for endpoint in source.endpoints)):
                parse_host(host)
            self._book.learn(source.node)
        dropped = addresses(carried.sources) - addresses(wanted)
        carried.set_sources(wanted, trio.current_time(), watched=watched)
        self._links.classify(source for each in self._carried.values() for source in each.sources)
        if dropped:
            self.reconnect({host for host, _ in dropped})
        self._divide(carried)
        self._dial(carried, wanted)
        self.calls.sources_changed(carried)
        self._busy.set()

    def reconnect(self, hosts: set[str] | None = None) -> None:
        """Close connections, to *hosts* or all of them, and dial those that are still sources anew."""
        self._links.disconnect(hosts)
        self._redial(hosts)

    def learn(self, nodes: Sequence[NodeId]) -> None:
        """Learn of nodes that may connect to this one, so that their bytes can be put to their names."""
        for node in nodes:
            self._book.learn(node)

    def set_far(self, hosts: Collection[str]) -> None:
        """Count peers at these addresses as being on the other side of the WAN."""
        self._links.set_far(hosts)

    def set_dials(self, dials: bool) -> None:
        """Dial sources from now on, or only take connections of others. Open ones stay."""
        self._session.apply_settings(dialling_settings(dials))

    def set_rates(self, rates: RateLimits) -> None:
        """Limit what crosses the site's own network and the WAN, mirrors too, from now on; no windows."""
        self.feeding.wan.set_rates(rates)

    def statistics(self, info_hash: InfoHash) -> ArtifactStatistics:
        """Return where an artifact stands.

        Raises:
            UsageError: it is not in the swarm.
        """
        return self._find(info_hash).statistics(self._book)

    def events(self) -> AsyncIterator[SwarmEvent]:
        """Iterate over what happens, in order, until the swarm is closed. For one reader at a time."""
        return self._outbox.events()

    def _find(self, info_hash: InfoHash) -> Carried:
        try:
            return self._carried[info_hash]
        except KeyError:
            raise UsageError(f"the artifact {info_hash} is not in the swarm") from None

    async def _start(self, artifact: Artifact) -> tuple[lt.torrent_handle, int, int]:
        """Put an artifact into the session, stopped; return its handle, pieces and piece size."""
        parameters, info = torrent_parameters(artifact, self._settings.ca_pem)
        handle = await trio.to_thread.run_sync(self._session.add_torrent, parameters)
        return handle, info.num_pieces(), info.piece_length()

    def _let_go(self, carried: Carried) -> None:
        """Give an artifact in the session its certificate, and start it."""
        self._desk.carry(carried)
        self._certify(carried)
        carried.handle.resume()
        self._dial(carried, carried.sources)
        self._busy.set()

    async def _stop(self, carried: Carried) -> None:
        """Take an artifact out of the session, with everything fetched so far in its file."""
        carried.flushed, carried.removed = trio.Event(), trio.Event()
        carried.handle.pause()
        carried.flush()
        await carried.flushed.wait()
        carried.present = False
        self._session.remove_torrent(carried.handle)
        await carried.removed.wait()
        self._desk.drop(carried)
        carried.flushes = 0

    async def _start_again(self, carried: Carried) -> None:
        """Go on after a storage failure or when stuck, from what is on the disk.

        The artifact is taken out and put in again: in 2.1.1 a recheck in place makes libtorrent expect
        blocks beyond the end of the file, and leaves its peers marked as useless.
        """
        async with carried.changing:
            if self._carried.get(carried.artifact.info_hash) is not carried:
                return
            carried.prepare_retry(trio.current_time())
            await self._stop(carried)
            carried.handle, _, _ = await self._start(carried.artifact)
            carried.present, carried.divided = True, ()
            self._divide(carried)
            self._let_go(carried)

    def _certify(self, carried: Carried) -> None:
        if not carried.present:
            return  # it is being taken out, and gets its certificate when it comes back
        certificate, key = (pem.decode() for pem in self._identity)
        carried.handle.set_ssl_certificate_buffer(certificate, key, FFDHE2048_PEM)

    def _divide(self, carried: Carried) -> None:
        if self._settings.role != "point" or not carried.present:
            return
        points = points_among(self._settings.node, carried.sources)
        if points != carried.divided:
            carried.divided = points
            carried.handle.prioritize_pieces(priorities(self._settings.node, points, carried.pieces))

    def _dial(self, carried: Carried, sources: Sequence[Source]) -> None:
        others = [source for source in sources if source.node != self._settings.node]
        if not self.calls.holds_back():
            carried.dial(others, trio.current_time())

    def _redial(self, hosts: set[str] | None = None) -> None:
        for each in self._carried.values():
            self._dial(each, [s for s in each.sources if hosts is None or s.host in hosts])

    def _emit(self, event: SwarmEvent) -> None:
        if isinstance(event, PieceRefused) and event.source is not None:
            self._links.ban(event.source, trio.current_time())
        self._outbox.put(event)

    def _close(self) -> None:
        """End the session. Blocks the whole process, up to 3 s until peers acknowledge the end of TLS."""
        self._outbox.close()
        self._session.pause()
        del self._session, self._desk, self._links, self.calls, self.feeding
        self._carried.clear()

    async def _run(self, wake: socket.socket, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_alerts, wake)
            nursery.start_soon(self._poll)
            nursery.start_soon(self._sync_finished)
            nursery.start_soon(self._resting.run)
            nursery.start_soon(self.calls.run)
            await self._listening.wait()
            task_status.started()

    async def _read_alerts(self, wake: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(wake)
            with suppress(BlockingIOError):
                wake.recv(4_096)
            wronged = self._desk.read(self._session.pop_alerts(), now=trio.current_time())
            if wronged:
                self.reconnect(wronged)
            if self._desk.listening or self._desk.listen_failure:
                self._listening.set()
            if self._desk.content_moved:
                self._busy.set()
            await trio.sleep(self._desk.batch_s())

    async def _poll(self) -> None:
        """Ask for rates while something moves, and once more afterwards; look after what is stuck or idle."""
        polls = 0
        while True:
            with trio.move_on_at(min((each.idle_at() for each in self._carried.values()), default=math.inf)):
                await self._busy.wait()
            self._busy = trio.Event()
            self._desk.content_moved = False
            self._session.post_torrent_updates()
            await trio.sleep(POLL_S)
            polls += 1
            for carried, now in ((each, trio.current_time()) for each in self._carried.values()):
                if not self.calls.holds_back():
                    carried.dial_overdue(now)
                if carried.is_stuck(now):
                    self._resting.add(carried)
                elif carried.idle_at() <= now:
                    carried.disconnect_idle(now)
                    self._busy.set()
            if polls % REDIAL_POLLS == 0:
                self._redial_alone()
            if any(carried.is_moving() for carried in self._carried.values()):
                self._busy.set()

    def _redial_alone(self) -> None:
        for carried in self._carried.values():
            if carried.is_alone():
                self._dial(carried, carried.sources)

    async def _sync_finished(self) -> None:
        async for carried in self._sync_out:
            try:
                if carried.is_watched(trio.current_time()):
                    await self.calls.look_at(carried)
                await carried.settle()
                await trio.to_thread.run_sync(sync_content_file, carried.artifact)
            except P2PDistError as error:
                self._emit(StorageFailed(info_hash=carried.artifact.info_hash, reason=str(error)))
                continue
            if self._carried.get(carried.artifact.info_hash) is carried and not carried.doubtful:
                carried.finish(trio.current_time())
                self._emit(ArtifactFinished(info_hash=carried.artifact.info_hash))


@asynccontextmanager
async def open_swarm(settings: SwarmSettings) -> AsyncIterator[Swarm]:
    """Open this node's session, and close it with everything in it when the block ends.

    Raises:
        UsageError: the settings make no sense.
        Unavailable: the address cannot be listened on.
    """
    pack = session_settings(settings)
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    with reader, writer:
        session = await trio.to_thread.run_sync(lt.session, pack)
        swarm = Swarm(session, settings)
        session.set_alert_fd(writer.fileno())
        del session
        try:
            async with trio.open_nursery() as nursery:
                try:
                    with trio.fail_after(LIBTORRENT_S):
                        await nursery.start(swarm._run, reader)
                except trio.TooSlowError:
                    swarm._desk.listen_failure = "no answer"
                if not swarm.port:
                    raise Unavailable(
                        f"the swarm cannot listen on {settings.host}:{settings.port} "
                        f"({swarm._desk.listen_failure})",
                        hint="is another program using it?",
                    )
                yield swarm
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise sole_error(group) from None
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(swarm._close)
