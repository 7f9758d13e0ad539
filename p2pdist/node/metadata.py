"""Signed metadata on a node: asked for when somebody has newer versions, verified, kept.

One task does all of it, so that the verifier never runs twice at once. Whoever wants to know of a new
catalog waits on :attr:`Metadata.newer`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

import trio

from p2pdist.errors import PeerError, TrustError, Unavailable, UsageError
from p2pdist.logs import get_logger
from p2pdist.trust.catalog import Catalog
from p2pdist.trust.verifier import Verifier
from p2pdist.wire.messages import Refusal
from p2pdist.wire.requests import Bundle, BundleRequest

_log = get_logger()

_AGAIN_FIRST_S = 2.0
_AGAIN_MAX_S = 300.0

AskBundle = Callable[[BundleRequest], Awaitable[Bundle]]


class Metadata:
    """The catalog that this node believes, and how it gets newer.

    Args:
        verifier: The verifier over the node's metadata directory.
        ask: Asks the present neighbour for a bundle; may raise any project error.
        refuse: Takes the report of metadata that was refused.
    """

    def __init__(
        self, verifier: Verifier, ask: AskBundle, refuse: Callable[[Refusal], Awaitable[None]]
    ) -> None:
        self._verifier = verifier
        self._ask = ask
        self._refuse = refuse
        self._catalog: Catalog | None = None
        self._versions: Mapping[str, int] = {}
        self._offered: Mapping[str, int] = {}
        self._offer = trio.Event()
        self._newer = trio.Event()

    @property
    def catalog(self) -> Catalog | None:
        """The newest verified catalog; None until the node has seen any."""
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
        """Verify what is on the disk. What has expired there is kept, and not believed."""
        try:
            catalog = await trio.to_thread.run_sync(lambda: self._verifier.load(now=_utc_now()))
        except TrustError as error:
            _log.warning("metadata.stale", reason=str(error))
            catalog = None
        await self._believe(catalog)

    def offer(self, versions: Mapping[str, int]) -> None:
        """A neighbour says that the admin server has these versions; an empty mapping: ask anyway."""
        self._offered = dict(versions)
        self._offer.set()

    @property
    def newer(self) -> trio.Event:
        """Set when the next catalog has been verified; take it before looking at :attr:`catalog`."""
        return self._newer

    async def export(self, have: Mapping[str, int]) -> Bundle:
        """Return the files that a neighbour lacks."""
        return await trio.to_thread.run_sync(self._verifier.export, dict(have))

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
            return True  # nothing newer there, or nothing published yet
        try:
            catalog = await trio.to_thread.run_sync(
                lambda: self._verifier.update(bundle, now=_utc_now()), abandon_on_cancel=False
            )
        except (TrustError, PeerError) as error:
            _log.warning("metadata.refused", relay=relay, reason=str(error))
            await self._refuse(_refusal(str(error), self._offered))
            return True
        except Unavailable as error:
            _log.error("metadata.not_stored", reason=str(error))
            return False
        await self._believe(catalog)
        return True

    async def _believe(self, catalog: Catalog | None) -> None:
        self._versions = await trio.to_thread.run_sync(self._verifier.versions)
        if catalog is None or catalog == self._catalog:
            return
        self._catalog = catalog
        _log.info("metadata.verified", releases=len(catalog.releases), grants=len(catalog.grants))
        self._newer.set()
        self._newer = trio.Event()


def _refusal(reason: str, offered: Mapping[str, int]) -> Refusal:
    subject = ", ".join(f"{role} {version}" for role, version in sorted(offered.items())) or "metadata"
    digest = hashlib.sha256(f"metadata {subject} {reason}".encode()).hexdigest()[:32]
    now = int(_utc_now().timestamp())
    return Refusal(id=digest, kind="metadata", subject=subject[:1_000], reason=reason[:4_000], at=now)


def _utc_now() -> datetime:
    return datetime.now(UTC)
