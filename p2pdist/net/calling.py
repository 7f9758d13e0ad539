"""Calling: links with neighbours below that dial nobody, kept up by the one above them.

    waiting ── dialled ── offered ── carried ── waiting

A point in a DMZ is *called*: this side dials it, asks whether it wants to be carried over the link, and
gives the link to its owner, as if the point had dialled. While somebody better carries it, the offer stays
open and is repeated. A point whose certificate has run out cannot be let in: then the only thing that is
done on the link is getting it another one, for which its key and the admin server's word are enough.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import trio

from p2pdist import limits
from p2pdist.core.upstream import Upstream, UpstreamChooser
from p2pdist.errors import P2PDistError, TrustError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.answering import RequestTable
from p2pdist.net.dialling import open_lapsed_link, open_link
from p2pdist.net.established import Link
from p2pdist.net.pulse import Pulse
from p2pdist.net.tls import TlsIdentity, has_expired
from p2pdist.wire.requests import Accepted, CarryOffer, Enrolled, Lapsed, RenewRequest

_log = get_logger()

CallState = Literal["dialling", "linked", "in reserve", "carried by another", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How far this side is with one neighbour. ``since`` is in Unix seconds; ``reason`` and ``hint`` say
    what went wrong last, and what to do about it."""

    state: CallState
    since: int
    reason: str = ""
    hint: str = ""


class Calls:
    """Keeps the links. Run :meth:`run` in a nursery.

    Args:
        identity: Returns what this node shows; asked for each dial.
        requests: What the neighbours may ask.
        on_link: Has a link that carries a neighbour, until it returns, as for
            :func:`~p2pdist.net.accepting.serve_links`.
        carried: Whether a neighbour is carried by somebody else already, so that nothing is to be done.
        renew: Answers the request of a neighbour for a certificate after its own has run out.
        spread: From 0 to 1; it spreads retries. Another for each neighbour is made of it.
        local_host: The address to dial from; None leaves it to the system.
    """

    def __init__(
        self,
        *,
        identity: Callable[[], TlsIdentity],
        requests: RequestTable,
        on_link: Callable[[Link], Awaitable[None]],
        carried: Callable[[NodeId], bool],
        renew: Callable[[Link, RenewRequest], Awaitable[Enrolled]],
        spread: float,
        local_host: str | None = None,
    ) -> None:
        self._identity = identity
        self._requests = requests
        self._on_link = on_link
        self._carried = carried
        self._renew = renew
        self._spread = spread
        self._local_host = local_host
        self._wanted: Mapping[NodeId, tuple[Upstream, ...]] = {}
        self._scopes: dict[NodeId, trio.CancelScope] = {}
        self._calls: dict[NodeId, Call] = {}
        self._changed = Pulse()

    def set(self, ways: Sequence[Upstream]) -> None:
        """Say whom to call, at all of their addresses, replacing what was said before."""
        wanted: dict[NodeId, tuple[Upstream, ...]] = {}
        for way in ways:
            wanted[way.node] = (*wanted.get(way.node, ()), way)
        for node, scope in self._scopes.items():
            if wanted.get(node) != self._wanted.get(node):
                scope.cancel()
        self._wanted = wanted
        self._changed.fire()

    def calls(self) -> Mapping[NodeId, Call]:
        """Return how things are with each neighbour that is called."""
        return {node: call for node, call in self._calls.items() if node in self._wanted}

    async def run(self) -> None:
        """Keep links up until cancelled; cancellation closes them cleanly."""
        async with trio.open_nursery() as nursery:
            while True:
                for node in self._wanted:
                    if node not in self._scopes:
                        self._scopes[node] = trio.CancelScope()
                        nursery.start_soon(self._keep, node, self._scopes[node])
                await self._changed.wait()

    async def _keep(self, node: NodeId, scope: trio.CancelScope) -> None:
        chooser = UpstreamChooser(spread=self._spread_of(node), retry_max_s=limits.CALL_AGAIN_S_MAX)
        chooser.set_candidates(self._wanted.get(node, ()), trio.current_time())
        try:
            with scope:
                while True:
                    if self._carried(node):
                        self._note(node, "carried by another")
                        await trio.sleep(limits.CALL_RESERVE_S)
                        continue
                    way, wake = chooser.next(trio.current_time())
                    if way is None:
                        await trio.sleep_until(wake)
                        continue
                    await self._call(way, chooser)
        finally:
            del self._scopes[node]
            self._calls.pop(node, None)
            self._changed.fire()  # it may be wanted again, at other addresses

    async def _call(self, way: Upstream, chooser: UpstreamChooser) -> None:
        """Call once, and serve what comes of it. Nothing that comes of it reaches the others."""
        if way.node not in self._calls or self._calls[way.node].state == "carried by another":
            self._note(way.node, "dialling")
        try:
            try:
                await self._carry(way, chooser)
            except P2PDistError as error:
                if not has_expired(error):
                    raise
                await self._renew_lapsed(way)
            chooser.lost(way, trio.current_time())
        except P2PDistError as error:
            self._failed(way, chooser, error)
        except Exception as error:  # noqa: BLE001  # one connection's handler: the others go on
            _log.exception("call.broken", node=way.node)
            self._failed(way, chooser, Unavailable(f"the link failed ({type(error).__name__})"))

    async def _carry(self, way: Upstream, chooser: UpstreamChooser) -> None:
        async with open_link(
            way.host,
            way.port,
            identity=self._identity(),
            expect=way.node,
            others=way.others,
            requests=self._requests,
            local_host=self._local_host,
        ) as link:
            if await self._offer(way.node, link):
                chooser.connected(way)
                self._note(way.node, "linked")
                _log.info("call.linked", node=way.node, host=link.remote_host)
                await self._have(link)
                self._note(way.node, "dialling", link.end_reason)

    async def _offer(self, node: NodeId, link: Link) -> bool:
        """Offer the link until the neighbour takes it; False when it is carried otherwise by then."""
        while not self._carried(node):
            try:
                await link.request("/carry", CarryOffer(), Accepted)
            except Unavailable as error:
                if link.end_reason:
                    raise
                self._note(node, "in reserve", error.what)
                await trio.sleep(limits.CALL_RESERVE_S)
            else:
                return True
        return False

    async def _have(self, link: Link) -> None:
        """Give the link to its owner; an error of its own ends the link, and is told to the neighbour."""
        try:
            await self._on_link(link)
        except* P2PDistError as group:
            reason = "; ".join(dict.fromkeys(str(error) for error in _leaves(group)))
            await link.aclose(reason)
            raise Unavailable(f"the link was given up: {reason}") from None

    async def _renew_lapsed(self, way: Upstream) -> None:
        """Get another certificate for a neighbour whose own has run out."""
        async with open_lapsed_link(
            way.host,
            way.port,
            identity=self._identity(),
            expect=way.node,
            others=way.others,
            local_host=self._local_host,
        ) as link:
            asked = await link.request("/lapsed", Lapsed(), RenewRequest)
            if asked.envelope.sender != way.node:
                raise TrustError(f"{way.node} asks for a certificate for {asked.envelope.sender}")
            await link.request("/certificate", await self._renew(link, asked), Accepted)
        _log.info("call.renewed", node=way.node)

    def _failed(self, way: Upstream, chooser: UpstreamChooser, error: P2PDistError) -> None:
        known = self._calls.get(way.node)
        if known is None or (known.state, known.reason) != ("failed", error.what):
            _log.warning("call.failed", node=way.node, reason=str(error))
        self._note(way.node, "failed", error.what, error.hint)
        chooser.failed(way, trio.current_time())

    def _note(self, node: NodeId, state: CallState, reason: str = "", hint: str = "") -> None:
        known = self._calls.get(node)
        if known is not None and known.state == state:
            self._calls[node] = replace(known, reason=reason, hint=hint)
        else:
            self._calls[node] = Call(state=state, since=int(time.time()), reason=reason, hint=hint)

    def _spread_of(self, node: NodeId) -> float:
        return (self._spread + int.from_bytes(node.encode()[:4], "big") % 997 / 997) % 1.0


def _leaves(error: BaseException) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]
