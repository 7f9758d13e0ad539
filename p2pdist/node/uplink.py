"""The link to the neighbour that carries this node, kept up for as long as the node runs.

:class:`Uplink` dials what :class:`~p2pdist.core.upstream.UpstreamChooser` says, and the next one beside it
when that takes long (as RFC 8305 does with addresses): a place that swallows what is sent to it costs a
second. It hands the frames that arrive to its owner, and moves to a better neighbour when one answers.
Between links, sending raises :class:`~p2pdist.errors.Unavailable`; nothing is queued here, because every
frame states a whole situation that the owner repeats when the next link is up.

A point in a DMZ dials nobody. There the neighbours above dial, and offer their links
(:meth:`Uplink.offer`); whatever happens on a link afterwards is the same.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import trio

from p2pdist import limits
from p2pdist.core.dialling import callers_of
from p2pdist.core.scope import gateways_above, points_for, preferred_points
from p2pdist.core.upstream import Upstream, UpstreamChooser
from p2pdist.errors import P2PDistError, TrustError, Unavailable
from p2pdist.ids import GroupPath, NodeId
from p2pdist.logs import get_logger
from p2pdist.net.endpoints import ways_to
from p2pdist.net.link import Link, StreamTable, open_link
from p2pdist.net.pulse import Pulse
from p2pdist.net.tls import TlsIdentity
from p2pdist.node.home import Home
from p2pdist.trust.catalog import Catalog
from p2pdist.wire.frames import AnyFrame

_log = get_logger()
T = TypeVar("T")

_NEXT_AFTER_S = 1.0  # until the next neighbour is dialled beside one that has not answered
_SIGN_OF_LIFE_S = 2 * (limits.LINK_AWAITED_S + 2 * limits.LINK_ANSWER_S)
_REPRIEVE_S = limits.LINK_AWAITED_S + 2 * limits.LINK_ANSWER_S + 1.0  # a silent neighbour is given up within


class Uplink:
    """The one upward link of a node.

    Args:
        identity: Returns the node's present TLS identity; asked for each dial.
        spread: See :class:`~p2pdist.core.upstream.UpstreamChooser`.
        local_host: The address to dial from, or None for the system's choice.
        on_up: Called when a link stands, before its first frame is handled.
        on_frame: Called for each frame, one after the other; its errors end the link if they are
            :class:`~p2pdist.errors.P2PDistError`, and the program otherwise.
        on_down: Called when a link has ended.
        while_up: Runs beside each link, and is cancelled when it ends.
        streams: What the neighbour may open to us.
        dials: Whether neighbours are dialled, or only those taken that dial.

    Attributes:
        fell_silent: Whether the link before ended because nothing was heard any more.
    """

    def __init__(
        self,
        *,
        identity: Callable[[], TlsIdentity],
        spread: float,
        local_host: str | None,
        on_up: Callable[[Upstream, Link], Awaitable[None]],
        on_frame: Callable[[AnyFrame], Awaitable[None]],
        on_down: Callable[[], None],
        while_up: Callable[[Link], Awaitable[None]],
        streams: StreamTable | None = None,
        dials: bool = True,
    ) -> None:
        self._identity = identity
        self._chooser = UpstreamChooser(spread=spread)
        self._local_host = local_host
        self._on_up = on_up
        self._on_frame = on_frame
        self._on_down = on_down
        self._while_up = while_up
        self._streams = streams
        self._dials = dials
        self._rests = False
        self.fell_silent = False
        self._ours = True  # whether the present link is one that was dialled from here
        self._candidates: tuple[Upstream, ...] = ()
        self._offered: tuple[Upstream, Link] | None = None
        self._link: Link | None = None
        self._upstream: Upstream | None = None
        self._changed = trio.Event()
        self._doubt = Pulse()
        self._redial: trio.CancelScope | None = None
        self._dialling: dict[Upstream, trio.CancelScope] = {}
        self._carrying: trio.CancelScope | None = None  # of the dial whose link is not closed yet

    @property
    def upstream(self) -> Upstream | None:
        """The neighbour that carries this node now."""
        return self._upstream

    @property
    def link(self) -> Link | None:
        """The link that stands now."""
        return self._link

    @property
    def hosts(self) -> frozenset[str]:
        """Where the neighbours are that may carry this node: names or addresses."""
        return self._chooser.hosts

    def set_candidates(self, candidates: Sequence[Upstream]) -> None:
        """Replace the neighbours to choose from, best first. The present link stays."""
        self._candidates = tuple(candidates)
        self._chooser.set_candidates(candidates, trio.current_time())
        self._wake()

    def set_dials(self, dials: bool) -> bool:
        """Dial neighbours from now on, or leave it to them; a link that should not be there ends.

        Returns:
            Whether that is news.
        """
        if dials == self._dials:
            return False
        self._dials = dials
        if self._link is None or self._ours:
            self.redial()
        self._wake()
        return True

    def rest(self) -> None:
        """End the link, and dial nobody until :meth:`rise`."""
        self._rests = True
        self.redial()

    def rise(self) -> None:
        """Dial again, whoever did not answer before."""
        self._rests = False
        self._chooser.network_changed(trio.current_time())
        self._wake()

    def is_above(self, node: NodeId) -> bool:
        """Whether a node is one of the neighbours to choose from."""
        return any(candidate.node == node for candidate in self._candidates)

    async def offer(self, link: Link) -> None:
        """A neighbour has dialled this node to carry it: take its link, instead of a worse one. The link
        is served by :meth:`run`.

        While a better neighbour carries this node, wait some seconds for its end: if it has gone without a
        word, that is found out.

        Raises:
            TrustError: it is none of the neighbours to choose from.
            Unavailable: another neighbour carries this node, and is no worse.
        """
        node = link.remote.node if link.remote is not None else None
        order = list(dict.fromkeys(candidate.node for candidate in self._candidates))
        if node not in order:
            raise TrustError(
                f"{node} is not above this node by signed grants", hint="look at the scopes of both grants"
            )
        better = order[: order.index(node)]
        if self._upstream is not None and self._upstream.node in better and self._link is not None:
            with trio.move_on_after(_REPRIEVE_S):
                async with self._link.awaiting():
                    await self._link.wait_ended()
        standing = self._upstream if self._link is not None and not self._link.end_reason else None
        present = self._offered[0] if self._offered is not None else standing
        if present is not None and present.node in better:
            raise Unavailable(f"{present.node} carries this node", hint="it is asked again later")
        if self._offered is not None:
            self._offered[1].abort("another neighbour carries this node")
        self._offered = next(each for each in self._candidates if each.node == node), link
        self.redial()
        self._wake()

    def redial(self) -> None:
        """End the present link, and dial again what is best now."""
        self._give_up_dials()
        if self._redial is not None:
            self._redial.cancel()

    def leave(self, reason: str) -> None:
        """The neighbour does not do its work: end the link; for a while, others come first."""
        if self._upstream is not None:
            _log.warning("link.left", upstream=self._upstream.node, kind=self._upstream.kind, reason=reason)
            self._chooser.shun(self._upstream.node, trio.current_time())
            self.redial()

    def answered(self) -> None:
        """The admin server has answered through the neighbour: both do their work."""
        if self._upstream is not None:
            self._chooser.proved(self._upstream.node)

    def patience_s(self) -> float:
        """Return how long the admin server may take to answer before another neighbour is tried."""
        return self._chooser.patience()

    def network_changed(self, *, cut: bool) -> None:
        """The machine's network has changed: find out whether the link still works, and dial anew if not.

        Args:
            cut: Whether the address that the link uses went away: it does not work any more.
        """
        self._chooser.network_changed(trio.current_time())
        self._give_up_dials()
        self._wake()
        if self._link is not None and cut:
            self._link.abort("this machine is in another network")
        self._doubt.fire()

    async def send(self, frame: AnyFrame) -> None:
        """Send a frame to the neighbour. Raises Unavailable between links."""
        await self._present().send(frame)

    async def request(self, path: str, body: Any, answer: type[T]) -> T:
        """Ask the neighbour. Raises Unavailable between links, and what the neighbour's problem maps to."""
        result: T = await self._present().request(path, body, answer)
        return result

    async def run(self) -> None:
        """Keep a link up until cancelled; cancellation closes it cleanly."""
        async with trio.open_nursery() as nursery:
            while True:
                while self._carrying is not None:
                    await self._changed.wait()
                if self._offered is not None:
                    await self._take()
                    continue
                upstream, wake = None, math.inf
                if self._dials and not self._rests:
                    upstream, wake = self._chooser.next(trio.current_time(), self._dialling)
                if upstream is not None:
                    self._dialling[upstream] = trio.CancelScope()
                    nursery.start_soon(self._dial, upstream)
                    with trio.move_on_after(_NEXT_AFTER_S):
                        await self._wait_settled(upstream)
                else:
                    await self._wait_changed(wake)

    async def _wait_settled(self, upstream: Upstream) -> None:
        while upstream in self._dialling and self._carrying is None and self._offered is None:
            await self._changed.wait()

    def _give_up_dials(self) -> None:
        """End all dials but the one that stands; they may be begun anew."""
        for scope in self._dialling.values():
            if scope is not self._carrying:
                scope.cancel()

    async def _take(self) -> None:
        """Serve the link that a neighbour has offered."""
        assert self._offered is not None
        upstream, link = self._offered
        self._offered = None
        self._carrying = trio.CancelScope()
        self._give_up_dials()
        try:
            await self._serve(upstream, link, ours=False)
            await link.aclose()
        finally:
            self._carrying = None

    async def _dial(self, upstream: Upstream) -> None:
        """Dial a neighbour, and keep the link if it is the first that stands."""
        scope = self._dialling[upstream]
        try:
            with scope:
                await self._carry(upstream, scope)
        finally:
            del self._dialling[upstream]
            if self._carrying is scope:
                self._carrying = None
            self._wake()

    async def _carry(self, upstream: Upstream, scope: trio.CancelScope) -> None:
        try:
            async with open_link(
                upstream.host,
                upstream.port,
                identity=self._identity(),
                expect=upstream.node,
                others=upstream.others,
                local_host=self._local_host,
                streams=self._streams,
            ) as link:
                if self._carrying is None:
                    self._carrying = scope
                    self._give_up_dials()
                    await self._serve(upstream, link, ours=True)
        except P2PDistError as error:
            _log.info("link.failed", upstream=upstream.node, kind=upstream.kind, reason=str(error))
            self._chooser.failed(upstream, trio.current_time())

    async def _serve(self, upstream: Upstream, link: Link, *, ours: bool) -> None:
        self._link, self._upstream, self._ours = link, upstream, ours
        self._wake()
        self._chooser.connected(upstream)
        _log.info(
            "link.up", upstream=upstream.node, kind=upstream.kind, host=link.remote_host, dialled=not ours
        )
        try:
            async with trio.open_nursery() as nursery:
                self._redial = nursery.cancel_scope
                if self._dials:
                    nursery.start_soon(self._seek_better, upstream, nursery.cancel_scope)
                nursery.start_soon(self._while_up, link)
                nursery.start_soon(self._demand_life, link)
                await self._on_up(upstream, link)
                async for frame in link.frames():
                    await self._on_frame(frame)
                nursery.cancel_scope.cancel()
        except* P2PDistError as group:
            _log.warning("link.broken", upstream=upstream.node, reason="; ".join(map(str, group.exceptions)))
        finally:
            self._link = self._upstream = self._redial = None
            self.fell_silent = link.fell_silent
            self._chooser.lost(upstream, trio.current_time(), silent=link.fell_silent)
            self._on_down()
            _log.info("link.down", upstream=upstream.node, kind=upstream.kind)

    async def _demand_life(self, link: Link) -> None:
        """Have the neighbour show a sign of life within seconds each time that the network has changed."""
        while True:
            await self._doubt.wait()
            with trio.move_on_after(_SIGN_OF_LIFE_S):
                async with link.awaiting():
                    await self._doubt.wait()

    async def _seek_better(self, present: Upstream, scope: trio.CancelScope) -> None:
        """Move to a better neighbour once it accepts a link."""
        while True:
            better, wake = self._chooser.better(present, trio.current_time())
            if better is None:
                await self._wait_changed(wake)
                continue
            try:
                async with open_link(
                    better.host,
                    better.port,
                    identity=self._identity(),
                    expect=better.node,
                    others=better.others,
                    local_host=self._local_host,
                ):
                    scope.cancel()
                    return
            except P2PDistError:
                self._chooser.failed(better, trio.current_time())

    async def _wait_changed(self, wake: float) -> None:
        with trio.move_on_at(wake):
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _present(self) -> Link:
        if self._link is None:
            raise Unavailable("no link to a distribution point or the admin server")
        return self._link


def upstreams_for(
    home: Home, catalog: Catalog | None, *, group: GroupPath | None, now: int
) -> list[Upstream]:
    """Return the neighbours that may carry a node, best first; the admin server is the last.

    Args:
        home: The node's directory.
        catalog: What is signed, as far as it is known.
        group: The group in which a device stands; None for a distribution point.
        now: Unix seconds.
    """
    points: list[Upstream] = []
    if catalog is not None:
        grants = catalog.grants.values()
        own = catalog.grants.get(home.node)
        carriers = points_for(group, grants, now) if group is not None else gateways_above(own, grants, now)
        if group is None and own is not None and own.dialled:
            carriers = callers_of(own, grants, now)
        for grant in preferred_points(home.node, carriers):
            points += ways_to(grant.node, grant.addresses, "point")
    enrolment = home.enrolment
    server = ways_to(enrolment.server_node, enrolment.addresses, "server")
    return [point for point in points if point.node != home.node] + server
