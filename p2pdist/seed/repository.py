"""A distribution point's content, for work that is about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import msgspec
import trio

from p2pdist import limits
from p2pdist.core.mirrored import Chosen, choose, fits
from p2pdist.duties.repository import Place
from p2pdist.errors import Unavailable
from p2pdist.ids import InfoHash, NodeId, TargetPath, swarm_of
from p2pdist.node.member import Member
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.seed.stock import Stock
from p2pdist.swarm.session import Artifact, Swarm
from p2pdist.trust.catalog import Release
from p2pdist.trust.enrolment import EnrolmentBundle

_METADATA_S = 10.0  # what is signed and what is assigned because of it come by different ways
_JOIN_S = 120.0  # until the swarm is joined: with a new certificate and the torrent, over two gateways
_LOOK_S = 1.0  # the stock says to nobody that it has no room


class StockRepository:
    """What :class:`~p2pdist.duties.repository.Repository` asks for, over a point's stock.

    The admin server wants of the point what its work names, so the stock makes room for it and has it in
    the swarm; here that is waited for.
    """

    def __init__(self, member: Member, stock: Stock, settings: MirrorSettings) -> None:
        self._member = member
        self._stock = stock
        self._open: set[InfoHash] = set()
        self.settings = settings

    @property
    def node(self) -> NodeId:
        """This point."""
        return self._member.node

    @property
    def swarm(self) -> Swarm:
        """The point's swarm."""
        return self._member.swarm

    @property
    def dials(self) -> bool:
        """Whether this point may dial anybody."""
        return self._member.dials

    async def choose(self, targets: Iterable[str]) -> Chosen:
        """Find releases by the metadata that is verified here; waits some seconds for newer.

        What the admin server found for a pattern is among what this point is to prefetch: a pattern has to
        fit that, too, and not only an older release.
        """
        wanted = tuple(targets)
        with trio.move_on_after(_METADATA_S):
            while self._known(wanted).unknown or self._lacks(wanted):
                await self._member.metadata.newer.wait()
        return self._known(wanted)

    def bundle(self) -> EnrolmentBundle:
        """Return this point's own, with its own addresses first where it is a gateway."""
        bundle, grant = self._member.home.enrolment, self._member.grants.own()
        own = grant.addresses if grant is not None and "gateway" in grant.duties else ()
        addresses = tuple(dict.fromkeys([*own, *bundle.addresses]))
        return msgspec.structs.replace(bundle, addresses=addresses[: limits.GRANT_ADDRESSES_MAX])

    @asynccontextmanager
    async def open(self, release: Release) -> AsyncIterator[Place]:
        """Wait until the stock has a release's artifact in the swarm. It stays there, as the stock decides.

        Raises:
            Unavailable: there is no room, no certificate for its swarm, or no torrent; or another run has it.
        """
        if release.info_hash in self._open:
            raise Unavailable("another run reads it here now", hint="wait for that one")
        self._open.add(release.info_hash)
        try:
            yield await self._place(release)
        finally:
            self._open.discard(release.info_hash)

    async def _place(self, release: Release) -> Place:
        content, info_hash = self._member.content, release.info_hash
        with trio.move_on_after(_JOIN_S):
            while content.statistics(info_hash) is None and info_hash not in self._stock.refused:
                with trio.move_on_after(_LOOK_S):
                    await content.wait_joined(info_hash)
        statistics = content.statistics(info_hash)
        if statistics is None:
            reason = self._stock.refused.get(
                info_hash, "its swarm could not be joined; the point's log says why"
            )
            raise Unavailable(f"it has no place here: {reason}")
        home = self._member.home
        torrent = await trio.to_thread.run_sync(home.read_torrent, info_hash)
        return Place(
            Artifact(
                info_hash=info_hash,
                torrent=torrent,
                path=home.artifact(info_hash),
                swarm=swarm_of(release.channel, home.fleet),
                length=release.length,
                sealed=False,
            ),
            statistics.complete,
        )

    def _known(self, targets: tuple[str, ...]) -> Chosen:
        return choose(targets, self._releases)

    def _lacks(self, targets: tuple[str, ...]) -> bool:
        desired = self._member.desired
        wanted = desired.prefetch if desired is not None else []
        return any(fits(targets, each) and TargetPath(each) not in self._releases for each in wanted)

    @property
    def _releases(self) -> Mapping[TargetPath, Release]:
        catalog = self._member.metadata.catalog
        return catalog.releases if catalog is not None else {}
