"""What the neighbours above may do with a point that is dialled: carry it, and renew its certificate.

The point dials nobody. The admin server, or a gateway above, dials the address at which its devices reach
it, and its certificate says who it is.
"""

from __future__ import annotations

from p2pdist.errors import TrustError
from p2pdist.ids import NodeId
from p2pdist.net.link import Link, OfferedStream, RequestHandler, RequestTable, StreamHandler, StreamTable
from p2pdist.node.member import Member
from p2pdist.wire.paths import SESSION_PATH, PathOpening
from p2pdist.wire.requests import Accepted, CarryOffer, Enrolled, Lapsed, RenewRequest


class Above:
    """See the module.

    Args:
        member: The point's own runtime.
    """

    def __init__(self, member: Member) -> None:
        self._member = member

    @property
    def requests(self) -> RequestTable:
        """What they may ask."""
        return {
            "/carry": RequestHandler(CarryOffer, self._carry),
            "/lapsed": RequestHandler(Lapsed, self._lapsed),
            "/certificate": RequestHandler(Enrolled, self._certificate),
        }

    @property
    def streams(self) -> StreamTable:
        """What byte streams they may open, once they carry this point."""
        return {SESSION_PATH: StreamHandler(PathOpening, self._session_path)}

    def stands(self, node: NodeId) -> bool:
        """Whether a node that has dialled this point stands above it: it is not to be carried.

        The admin server dials only who is dialled by a grant, which may be news here.
        """
        if node == self._member.home.enrolment.server_node:
            return True
        return not self._member.dials and self._member.uplink.is_above(node)

    async def _carry(self, link: Link, offer: CarryOffer) -> Accepted:
        self._check(link)
        await self._member.uplink.offer(link)
        return Accepted()

    async def _lapsed(self, link: Link, lapsed: Lapsed) -> RenewRequest:
        self._check(link)
        return await self._member.renewal()

    async def _certificate(self, link: Link, enrolled: Enrolled) -> Accepted:
        self._check(link)
        await self._member.take_certificate(enrolled.certificate)
        return Accepted()

    async def _session_path(self, link: Link, opening: PathOpening, offered: OfferedStream) -> None:
        if link is not self._member.uplink.link:
            raise TrustError("sessions come from the neighbour that carries this node")
        await self._member.session_path(link, opening, offered)

    def _check(self, link: Link) -> None:
        node = link.remote.node if link.remote is not None else None
        if node is None or not self.stands(node):
            raise TrustError(f"{node or 'a stranger'} is not above this node by signed grants")
