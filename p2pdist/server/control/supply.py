"""What nodes may ask the admin server for: metadata and torrents."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from p2pdist.errors import TrustError
from p2pdist.ids import InfoHash
from p2pdist.net.link import Link, RequestHandler, RequestTable
from p2pdist.wire.requests import Bundle, BundleRequest, Torrent, TorrentRequest


class Supply:
    """Answers ``/bundle`` and ``/torrent``.

    Args:
        export: Returns the metadata that a node lacks. Blocking.
        torrent: Returns an artifact's torrent, or None. Blocking.
    """

    def __init__(
        self,
        export: Callable[[Mapping[str, int]], Bundle],
        torrent: Callable[[InfoHash], bytes | None],
    ) -> None:
        self._export = export
        self._torrent = torrent

    @property
    def requests(self) -> RequestTable:
        """What members may ask of it."""
        return {
            "/bundle": RequestHandler(BundleRequest, self.bundle),
            "/torrent": RequestHandler(TorrentRequest, self.torrent),
        }

    async def bundle(self, link: Link, request: BundleRequest) -> Bundle:
        """Return the metadata that the asker lacks."""
        return await trio.to_thread.run_sync(self._export, dict(request.have))

    async def torrent(self, link: Link, request: TorrentRequest) -> Torrent:
        """Return a torrent. Raises TrustError when no published release has the artifact."""
        info_hash = InfoHash(request.info_hash)
        torrent = await trio.to_thread.run_sync(self._torrent, info_hash)
        if torrent is None:
            raise TrustError(f"no published release has the artifact {info_hash}")
        return Torrent(torrent=torrent)
