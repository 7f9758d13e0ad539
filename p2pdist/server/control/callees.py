"""The points that the admin server dials, because they dial nobody themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from p2pdist import limits
from p2pdist.core.dialling import called_by, callers_of
from p2pdist.ids import NodeId
from p2pdist.net.endpoints import ways_to
from p2pdist.net.link import Call, Calls, Link, RequestTable
from p2pdist.net.tls import TlsIdentity
from p2pdist.trust.catalog import Catalog
from p2pdist.wire.requests import Enrolled, RenewRequest


class Callees:
    """Calls every point that is dialled and that nobody carries.

    Where gateways above it can do it, they come first: the admin server waits a little for them.

    Args:
        identity: Returns what the admin server shows.
        requests: What its neighbours may ask.
        on_link: Has each link, as if the point had dialled.
        reached: Whether a node can be reached now.
        unwanted: Whether a node has left the fleet.
        renew: Answers a request for a certificate.
    """

    def __init__(
        self,
        *,
        identity: Callable[[], TlsIdentity],
        requests: RequestTable,
        on_link: Callable[[Link], Awaitable[None]],
        reached: Callable[[NodeId], bool],
        unwanted: Callable[[NodeId], bool],
        renew: Callable[[Link, RenewRequest], Awaitable[Enrolled]],
    ) -> None:
        self._reached = reached
        self._unwanted = unwanted
        self._others_first: frozenset[NodeId] = frozenset()
        self._missed: dict[NodeId, float] = {}
        self._calls = Calls(
            identity=identity,
            requests=requests,
            on_link=on_link,
            carried=self._carried,
            renew=renew,
            spread=0.0,
        )

    def look(self, catalog: Catalog | None, now: int) -> None:
        """Call whom the catalog names now. *now* in Unix seconds."""
        grants = tuple(catalog.grants.values()) if catalog is not None else ()
        called = called_by(None, grants, now)
        self._others_first = frozenset(grant.node for grant in called if callers_of(grant, grants, now))
        self._calls.set([way for grant in called for way in ways_to(grant.node, grant.addresses, "point")])

    def calls(self) -> Mapping[NodeId, Call]:
        """Return how things are with each of them."""
        return self._calls.calls()

    async def run(self) -> None:
        """Keep the links up until cancelled."""
        await self._calls.run()

    def _carried(self, node: NodeId) -> bool:
        if self._reached(node) or self._unwanted(node):
            self._missed.pop(node, None)
            return True
        since = self._missed.setdefault(node, trio.current_time())
        return node in self._others_first and trio.current_time() - since < limits.CALL_RESERVE_S
