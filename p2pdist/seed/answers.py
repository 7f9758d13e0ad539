"""What a distribution point answers those below it: from its own disk, else from whoever is above it."""

from __future__ import annotations

from collections.abc import Mapping

import trio

from p2pdist.errors import Unavailable
from p2pdist.ids import InfoHash
from p2pdist.net.link import Link, RequestHandler
from p2pdist.node.member import Member
from p2pdist.wire.requests import (
    Bundle,
    BundleRequest,
    Enrolled,
    EnrolRequest,
    RenewRequest,
    Torrent,
    TorrentRequest,
)


class Answers:
    """The requests that a point answers.

    Args:
        member: The point's own runtime.
    """

    def __init__(self, member: Member) -> None:
        self._member = member

    def table(self) -> Mapping[str, RequestHandler]:
        """Return what answers a request, by its path."""
        return {
            "/enrol": RequestHandler(EnrolRequest, self._pass_enrolment, strangers=True),
            "/renew": RequestHandler(RenewRequest, self._pass_renewal, strangers=True),
            "/bundle": RequestHandler(BundleRequest, self._bundle),
            "/torrent": RequestHandler(TorrentRequest, self._torrent),
        }

    async def _bundle(self, link: Link, request: BundleRequest) -> Bundle:
        if request.relay:
            asked = BundleRequest(have=request.have, relay=False)
            return await self._member.uplink.request("/bundle", asked, Bundle)
        return await self._member.metadata.export(request.have)

    async def _torrent(self, link: Link, request: TorrentRequest) -> Torrent:
        path = self._member.home.torrent(InfoHash(request.info_hash))
        try:
            return Torrent(torrent=await trio.to_thread.run_sync(path.read_bytes))
        except FileNotFoundError:
            return await self._member.uplink.request("/torrent", request, Torrent)
        except OSError as error:
            raise Unavailable(f"torrent {request.info_hash} cannot be read ({error.strerror})") from error

    async def _pass_enrolment(self, link: Link, request: EnrolRequest) -> Enrolled:
        return await self._member.uplink.request("/enrol", request, Enrolled)

    async def _pass_renewal(self, link: Link, request: RenewRequest) -> Enrolled:
        return await self._member.uplink.request("/renew", request, Enrolled)
