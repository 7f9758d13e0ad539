"""Signed metadata on a node: asked for when somebody has newer versions, verified, kept, and let go in time.

What is believed changes in two ways: a neighbour has something newer, or time has passed. Whoever wants
to know waits on :attr:`Metadata.newer`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import msgspec
import trio

from p2pdist import limits
from p2pdist.errors import PeerError, TrustError, Unavailable, UsageError
from p2pdist.logs import get_logger
from p2pdist.node.clock import wall_clock_says
from p2pdist.trust.catalog import Catalog
from p2pdist.trust.verifier import Verifier
from p2pdist.wire.messages import Refusal
from p2pdist.wire.requests import Bundle, BundleRequest

_log = get_logger()

_AGAIN_FIRST_S = 2.0
_AGAIN_MAX_S = 300.0
_UNREADABLE_AGAIN_S = 30

AskBundle = Callable[[BundleRequest], Awaitable[Bundle]]


class Metadata:
    """The catalog that this node believes, and how it gets newer.

    Args:
        verifier: The verifier over the node's metadata directory.
        ask: Asks the present neighbour for a bundle; may raise any project error.
        refuse: Takes the report of metadata that was refused.
        unix_clock: The wall clock.
    """

    def __init__(
        self,
        verifier: Verifier,
        ask: AskBundle,
        refuse: Callable[[Refusal], Awaitable[None]],
        *,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        self._verifier = verifier
        self._unix_clock = unix_clock
        self._believing = trio.Lock()  # what was verified first is believed first
        self._ask = ask
        self._refuse = refuse
        self._catalog: Catalog | None = None
        self._versions: Mapping[str, int] = {}
        self._exports: dict[tuple[tuple[str, int], ...], Bundle] = {}
        self._offered: Mapping[str, int] = {}
        self._offer = trio.Event()
        self._newer = trio.Event()

    @property
    def catalog(self) -> Catalog | None:
        """What is believed now; None until the node has seen any, and when people's signatures expire."""
        return self._catalog

    @property
    def versions(self) -> Mapping[str, int]:
        """Role to version of what is verified and on the disk."""
        return self._versions

    @property
    def offered(self) -> Mapping[str, int]:
        """The versions that the admin server was last said to have."""
        return self._offered

    async def load(self) -> None:
        """Verify what is on the disk. What has expired there is kept, and believed no more than it may be."""
        async with self._believing:
            try:
                catalog = await trio.to_thread.run_sync(partial(self._verifier.recall, now=self._now()))
            except TrustError as error:
                _log.warning("metadata.expired", reason=str(error))
                catalog = None
            if catalog is not None and catalog.stale:
                _log.warning("metadata.stale", until=catalog.expires)
            await self._believe(catalog)

    async def follow_time(self) -> None:
        """Believe no longer than signatures are valid, until cancelled.

        The wall clock counts; when it was set, everything is looked at again.
        """
        while True:
            newer = self._newer
            expiry = self._catalog.next_expiry(self._unix_clock()) if self._catalog is not None else None
            if not await wall_clock_says(expiry, unless=newer, unix_clock=self._unix_clock):
                continue
            before = self._catalog
            try:
                await self.load()
            except Unavailable as error:
                _log.error("metadata.not_read", reason=str(error))
                self._distrust()
            if self._catalog is before:
                self._tell()  # a grant in it has expired

    def offer(self, versions: Mapping[str, int]) -> None:
        """A neighbour says that the admin server has these versions; an empty mapping: ask anyway."""
        self._offered = dict(versions)
        self._offer.set()

    @property
    def newer(self) -> trio.Event:
        """Set when a catalog has been verified, or something in one has expired.

        Take it before looking at :attr:`catalog`.
        """
        return self._newer

    async def export(self, have: Mapping[str, int]) -> Bundle:
        """Return the files that a neighbour lacks.

        When thousands of devices hear of something new at once, nearly all of them lack the same.
        """
        key = tuple(sorted(have.items()))
        known = self._exports.get(key)
        if known is not None:
            return known
        exports = self._exports
        bundle = await trio.to_thread.run_sync(self._verifier.export, dict(have))
        size = sum(map(len, bundle.files.values()))
        if size <= limits.EXPORT_KEPT_BYTES_MAX and len(exports) < limits.EXPORTS_KEPT_MAX:
            exports[key] = bundle  # of those versions of which it was made, if there are newer ones by now
        return bundle

    async def run(self, *, relayed: Callable[[], bool]) -> None:
        """Serve offers until cancelled.

        Args:
            relayed: Whether the neighbour is a distribution point, which can be asked to fetch from
                the admin server what it does not have itself.
        """
        again = _AGAIN_FIRST_S
        while True:
            await self._offer.wait()
            self._offer = trio.Event()
            done = await self._update(relay=False)
            if self._behind() and relayed():
                done = await self._update(relay=True)
            again = _AGAIN_FIRST_S if done else min(_AGAIN_MAX_S, again * 2)
            if not done:
                with trio.move_on_after(again) as scope:
                    await self._offer.wait()
                if scope.cancelled_caught:
                    self._offer.set()

    def _behind(self) -> bool:
        return any(self._versions.get(role, 0) < version for role, version in self._offered.items())

    async def _update(self, *, relay: bool) -> bool:
        """Ask once and verify. Returns False when it makes sense to ask again before the next offer."""
        try:
            bundle = await self._ask(BundleRequest(have=dict(self._versions), relay=relay))
        except (Unavailable, PeerError, UsageError) as error:
            _log.info("metadata.unavailable", relay=relay, reason=str(error))
            return False
        if not bundle.files:
            return not self._behind()  # what was offered is still on its way to whoever was asked
        try:
            async with self._believing:
                catalog = await trio.to_thread.run_sync(
                    partial(self._verifier.update, bundle, now=self._now()), abandon_on_cancel=False
                )
                await self._believe(catalog)
        except (TrustError, PeerError) as error:
            _log.warning("metadata.refused", relay=relay, reason=str(error))
            await self._refuse(_refusal(str(error), self._offered, at=int(self._unix_clock())))
            return True
        except Unavailable as error:
            _log.error("metadata.not_stored", reason=str(error))
            return False
        return True

    async def _believe(self, catalog: Catalog | None) -> None:
        self._exports = {}
        self._versions = await trio.to_thread.run_sync(self._verifier.versions)
        if catalog == self._catalog:
            return
        self._catalog = catalog
        if catalog is not None and not catalog.stale:
            _log.info("metadata.verified", releases=len(catalog.releases), grants=len(catalog.grants))
        self._tell()

    def _distrust(self) -> None:
        """The disk does not say what is still valid: install nothing by it, and read it again soon."""
        if self._catalog is not None:
            again = int(self._unix_clock()) + _UNREADABLE_AGAIN_S
            self._catalog = msgspec.structs.replace(self._catalog, stale=True, expires=again)
            self._tell()

    def _tell(self) -> None:
        self._newer.set()
        self._newer = trio.Event()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._unix_clock(), UTC)


def _refusal(reason: str, offered: Mapping[str, int], *, at: int) -> Refusal:
    subject = ", ".join(f"{role} {version}" for role, version in sorted(offered.items())) or "metadata"
    digest = hashlib.sha256(f"metadata {subject} {reason}".encode()).hexdigest()[:32]
    return Refusal(id=digest, kind="metadata", subject=subject[:1_000], reason=reason[:4_000], at=at)
