"""The gateways below that this point dials, because they dial nobody themselves."""

from __future__ import annotations

import time

from p2pdist.core.dialling import called_by
from p2pdist.logs import get_logger
from p2pdist.net.endpoints import ways_to
from p2pdist.net.link import Calls
from p2pdist.node.member import Member
from p2pdist.seed.members import Members

_log = get_logger()


class Callees:
    """Calls them, and has the point carry them as any other.

    Args:
        member: The point's own runtime.
        members: Whom it carries.
    """

    def __init__(self, member: Member, members: Members) -> None:
        self._member = member
        self._calls = Calls(
            identity=member.home.tls_identity,
            requests=members.supply.requests,
            on_link=members.carry,
            carried=members.carries,
            renew=members.supply.renew,
            spread=0.5,
            local_host=member.settings.link_host,
        )

    def look(self) -> None:
        """Call whom signed grants name now; nobody while this point is dialled itself."""
        catalog = self._member.metadata.catalog
        grants = tuple(catalog.grants.values()) if catalog is not None else ()
        own = catalog.grants.get(self._member.node) if catalog is not None else None
        if self._member.settings.dialled and own is not None and not own.dialled:
            _log.warning(
                "point.not_called", reason="its file says that it is dialled, and its grant does not"
            )
        called = called_by(own, grants, int(time.time())) if own is not None and self._member.dials else ()
        self._calls.set([way for grant in called for way in ways_to(grant.node, grant.addresses, "point")])

    async def run(self) -> None:
        """Keep the links up until cancelled."""
        await self._calls.run()
