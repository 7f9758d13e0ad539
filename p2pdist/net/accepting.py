"""Accepting: from a listening socket to links, whatever knocks on it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import lru_cache
from typing import NoReturn

import trio

from p2pdist import limits
from p2pdist.core.pace import pace_s
from p2pdist.errors import P2PDistError, PeerError, TrustError
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.admitting import Row, accept_into
from p2pdist.net.answering import RequestTable
from p2pdist.net.established import Link
from p2pdist.net.flushing import Flusher
from p2pdist.net.listening import open_listeners
from p2pdist.net.pulse import Pulse
from p2pdist.net.secure import SecureStream
from p2pdist.net.streaming import StreamTable
from p2pdist.net.tls import PROTOCOL, TlsIdentity, failure, server_context
from p2pdist.trust.certificates import parse_certificate

_log = get_logger()

_WATCHED_AT_ONCE = 500  # links between two checkpoints

_read = lru_cache(limits.CERTIFICATES_READ_MAX)(parse_certificate)  # they come again; TLS has verified them


class OpenLinks:
    """The members' links that stand on one listener; the owner may end those of one node at once."""

    def __init__(self) -> None:
        self._links: dict[Link, NodeId] = {}
        self._pace_s = limits.LINK_PACES_S[0]

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Link]:
        return iter(tuple(self._links))

    def of(self, node: NodeId) -> tuple[Link, ...]:
        """Return the links with *node*."""
        return tuple(link for link, remote in self._links.items() if remote == node)

    def cut(self, node: NodeId, reason: str) -> int:
        """End every link with *node* at once, such as when it is revoked. Returns how many there were."""
        links = self.of(node)
        for link in links:
            link.abort(reason)
        return len(links)

    def _add(self, link: Link, node: NodeId) -> None:
        self._links[link] = node
        link.set_pace(self._pace_s)

    def _discard(self, link: Link) -> None:
        self._links.pop(link, None)

    async def _watch(self) -> None:
        while True:
            await trio.sleep(limits.LINK_WATCH_S)
            before, self._pace_s = self._pace_s, pace_s(len(self), self._pace_s)
            for number, link in enumerate(self):
                if number % _WATCHED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
                if self._pace_s != before:
                    link.set_pace(self._pace_s)
                link.watch(trio.current_time())


async def serve_links(
    *,
    host: str,
    port: int,
    identity: Callable[[], TlsIdentity],
    requests: RequestTable,
    streams: StreamTable | None = None,
    on_link: Callable[[Link], Awaitable[None]],
    revoked: Callable[[NodeId], bool],
    open_links: OpenLinks | None = None,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept links until cancelled; cancellation closes them all.

    Args:
        host: The address to listen on, or :data:`~p2pdist.core.listening.EVERYWHERE`.
        port: The TCP port; 0 takes any free one.
        identity: Returns what we show; asked for each connection.
        requests: What may be asked of us, also by strangers where their handler says so.
        streams: What byte streams members may open to us.
        on_link: Has a member's link for as long as it runs; the link is closed when it returns. When
            the link ends earlier, its iterator of frames ends. What it raises is logged; the reason of
            a :class:`~p2pdist.errors.P2PDistError` is told to the neighbour. Never called for
            strangers and revoked nodes.
        revoked: Whether a node is not welcome any more; asked once for each connection.
        open_links: Where the links that stand are kept, so that the owner can end some.
        task_status: Gets the bound ``(host, port)`` once connections are accepted.

    Raises:
        UsageError: the address cannot be listened on.
    """
    listeners = await open_listeners(host, port)
    bound_host, bound_port = listeners[0].socket.getsockname()[:2]
    links = open_links if open_links is not None else OpenLinks()
    acceptor = _Acceptor(identity, requests, streams or {}, on_link, revoked, links)
    with closing(Row()) as row:
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(accept_into, row, listener)
            nursery.start_soon(links._watch)
            nursery.start_soon(acceptor.flusher.run)
            task_status.started((bound_host, bound_port))
            await acceptor.admit(row)


class _Acceptor:
    """Takes connections through the handshake, and gives those of members to their owner."""

    def __init__(
        self,
        identity: Callable[[], TlsIdentity],
        requests: RequestTable,
        streams: StreamTable,
        on_link: Callable[[Link], Awaitable[None]],
        revoked: Callable[[NodeId], bool],
        links: OpenLinks,
    ) -> None:
        self._identity = identity
        self._requests = requests
        self._streams = streams
        self._on_link = on_link
        self._revoked = revoked
        self._links = links
        self._pending: dict[SecureStream, None] = {}  # in the order in which they were begun
        self._place = Pulse()
        self.flusher = Flusher()
        self._strangers: dict[Link, None] = {}
        self._turns = trio.Semaphore(limits.LINK_HANDSHAKE_STEPS)
        self._context: tuple[TlsIdentity, ssl.SSLContext] | None = None

    async def admit(self, row: Row) -> NoReturn:
        """Begin handshakes as fast as they can be brought to an end: few at a time, or all would be late."""
        async with trio.open_nursery() as nursery:
            while True:
                await row.wait()
                if not self._has_place():
                    with trio.move_on_after(limits.LINK_PATIENCE_S):
                        await self._place.wait()
                    continue
                begun = self._turns.statistics().tasks_waiting
                for _ in range(limits.LINK_HANDSHAKE_STEPS - begun):
                    if not self._has_place() or (plain := row.take()) is None:
                        break
                    stream = self._begin(plain)
                    if stream is not None:
                        nursery.start_soon(self._connection, stream)

    def _begin(self, plain: socket.socket) -> SecureStream | None:
        """Give a connection a place among those that shake hands, if it still stands."""
        try:
            tcp = trio.SocketStream(trio.socket.from_stdlib_socket(plain))
            stream = SecureStream(tcp, self._tls(), server_side=True)
        except (P2PDistError, OSError) as error:
            _log.info("link.refused", reason=str(error))
            plain.close()
            return None
        self._pending[stream] = None
        return stream

    async def _connection(self, stream: SecureStream) -> None:
        """Serve one connection. Nothing that comes of it reaches the others."""
        deadline = trio.current_time() + limits.LINK_HANDSHAKE_S
        try:
            link = await self._shake_hands(stream, deadline)
            if link is not None:
                await self._carry(link, stream, deadline)
        except (P2PDistError, OSError) as error:
            _log.info("link.refused", reason=str(error))
        except Exception:  # noqa: BLE001  # one connection's handler: the server goes on
            _log.exception("link.failed")
        finally:
            self._settle(stream)
            stream.sever()

    def _has_place(self) -> bool:
        """Whether one more may shake hands; whoever keeps us waiting does not stand in its way.

        Where there are too many of those, too, one of them is cut.
        """
        if len(self._pending) < limits.LINKS_BEGUN_MAX:
            return True
        slow = self._slow()
        if len(self._pending) - len(slow) >= limits.LINKS_BEGUN_MAX:
            return False
        if len(self._pending) >= limits.LINKS_PENDING_MAX:
            self._settle(slow[0])
            slow[0].sever()
        return True

    def _settle(self, stream: SecureStream) -> None:
        """A connection shakes hands no more, however it ended."""
        self._pending.pop(stream, None)
        self._place.fire()

    def _slow(self) -> list[SecureStream]:
        """Return the connections whose handshake keeps us waiting, in the order in which they were begun."""
        late = trio.current_time() - limits.LINK_PATIENCE_S
        return [s for s in self._pending if s.waiting_since and s.waiting_since <= late]

    async def _shake_hands(self, stream: SecureStream, deadline: float) -> Link | None:
        local_host, remote_host = stream.addresses()
        with trio.move_on_at(deadline) as scope:
            try:
                await stream.do_handshake(self._turns)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise failure(remote_host, error) from error
        if scope.cancelled_caught:
            _log.info("link.handshake_slow", host=remote_host)
            return None
        if stream.protocol() != PROTOCOL:
            raise PeerError(f"{remote_host} does not speak {PROTOCOL}")
        shown = stream.certificate()
        remote = _read(shown) if shown else None
        refusal = None
        if remote is not None and self._revoked(remote.node):
            refusal = TrustError(f"{remote.node} is not a member of this fleet any more")
        return Link(
            stream,
            dialler=False,
            remote=remote,
            remote_host=remote_host,
            local_host=local_host,
            requests=self._requests,
            streams=self._streams,
            member=remote is not None,
            refusal=refusal,
            sever=stream.sever,
            flusher=self.flusher,
        )

    async def _carry(self, link: Link, stream: SecureStream, deadline: float) -> None:
        if link.remote is None or link.refused:
            self._settle(stream)
            await self._carry_stranger(link, deadline)
            return
        self._links._add(link, link.remote.node)
        try:
            async with link.running(watched=True):
                with trio.move_on_at(deadline) as scope:
                    await link.wait_established()
                self._settle(stream)
                if scope.cancelled_caught:
                    _log.info("link.handshake_slow", peer=link.peer)
                else:
                    await self._have(link)
        finally:
            self._links._discard(link)

    async def _have(self, link: Link) -> None:
        try:
            await self._on_link(link)
        except P2PDistError as error:
            _log.warning("link.ended", peer=link.peer, reason=str(error))
            await link.aclose(error.what)
        except ExceptionGroup as group:
            ours, others = group.split(P2PDistError)
            if others is not None:
                raise
            assert ours is not None
            reason = "; ".join(str(error) for error in _leaves(ours))
            _log.warning("link.ended", peer=link.peer, reason=reason)
            await link.aclose(reason)

    async def _carry_stranger(self, link: Link, deadline: float) -> None:
        """Answer what a stranger may ask, for a while. A refused node hears why, and no more."""
        if len(self._strangers) >= limits.LINK_STRANGERS_MAX:
            loser = next((each for each in self._strangers if not each.busy), link)
            self._strangers.pop(loser, None)
            loser.abort("too many strangers at once")
        if link.remote is None:
            deadline += limits.LINK_STRANGER_S - limits.LINK_HANDSHAKE_S
        self._strangers[link] = None
        try:
            async with link.running():
                with trio.move_on_at(deadline):
                    await link.wait_ended()
        finally:
            self._strangers.pop(link, None)

    def _tls(self) -> ssl.SSLContext:
        identity = self._identity()
        if self._context is None or self._context[0] != identity:
            self._context = (identity, server_context(identity))
        return self._context[1]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
