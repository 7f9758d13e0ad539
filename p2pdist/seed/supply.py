"""What the neighbours below may ask a distribution point for: metadata, torrents, and a word from the
admin server."""

from __future__ import annotations

import trio

from p2pdist.errors import Unavailable
from p2pdist.ids import InfoHash
from p2pdist.net.link import Link, RequestHandler, RequestTable
from p2pdist.node.member import Member
from p2pdist.seed.passing import Passing
from p2pdist.wire.requests import (
    Bundle,
    BundleRequest,
    Enrolled,
    EnrolRequest,
    RenewRequest,
    Torrent,
    TorrentRequest,
)


class Supply:
    """Answers from the point's own disk, or asks its neighbour above.

    Args:
        member: The point's own runtime.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._passing = Passing(member.uplink)

    @property
    def requests(self) -> RequestTable:
        """What may be asked."""
        return {
            "/enrol": RequestHandler(EnrolRequest, self._enrol, strangers=True),
            "/renew": RequestHandler(RenewRequest, self.renew, strangers=True),
            "/bundle": RequestHandler(BundleRequest, self._bundle),
            "/torrent": RequestHandler(TorrentRequest, self._torrent),
        }

    async def renew(self, link: Link, request: RenewRequest) -> Enrolled:
        """Pass the request of a node whose certificate has run out on to the admin server."""
        return await self._passing.ask(link, "/renew", request, Enrolled)

    async def _enrol(self, link: Link, request: EnrolRequest) -> Enrolled:
        return await self._passing.ask(link, "/enrol", request, Enrolled)

    async def _bundle(self, link: Link, request: BundleRequest) -> Bundle:
        if request.relay:
            above = self._member.uplink.upstream
            relay = above is not None and above.kind == "point"  # which may not have it yet either
            asked = BundleRequest(have=request.have, relay=relay)
            return await self._passing.ask(link, "/bundle", asked, Bundle)
        return await self._member.metadata.export(request.have)

    async def _torrent(self, link: Link, request: TorrentRequest) -> Torrent:
        path = self._member.home.torrent(InfoHash(request.info_hash))
        try:
            return Torrent(torrent=await trio.to_thread.run_sync(path.read_bytes))
        except FileNotFoundError:
            return await self._passing.ask(link, "/torrent", request, Torrent)
        except OSError as error:
            raise Unavailable(f"torrent {request.info_hash} cannot be read ({error.strerror})") from error
