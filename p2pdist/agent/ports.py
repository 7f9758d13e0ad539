"""What a deployer needs of the node around it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from p2pdist.ids import InfoHash
from p2pdist.install.installers import InstallLayout, InstallResult
from p2pdist.trust.catalog import Release
from p2pdist.wire.messages import Progress, Refusal, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentStatus:
    """How far one artifact is. ``sources`` are the peers that bytes came from lately.

    ``waits`` says why nobody serves it, where that is known.
    ``note`` says how it was fetched, where there is something to be said.
    """

    fraction: float
    complete: bool
    rate_bytes_per_s: int
    sources: int
    waits: str = ""
    note: str = ""


class ContentSource(Protocol):
    """Where artifacts come from. None of it may wait for the network."""

    async def want(self, release: Release) -> None:
        """Fetch the release's artifact, or go on serving it. Wanting it again changes nothing.

        Raises:
            P2PDistError: not now; the deployer asks again later.
        """

    async def unwant(self, info_hash: InfoHash, *, delete: bool) -> None:
        """The deployer does not need it any more. With *delete*, free its space and forget its bytes.

        Another part of the node may need the same artifact (a distribution point serves its scope);
        whoever implements this knows, and keeps it then. With *delete* because of bad bytes, what is on
        the disk must not be taken for complete again without being fetched or checked.

        Raises:
            Unavailable: the disk does not let it go.
        """

    def status(self, info_hash: InfoHash) -> ContentStatus | None:
        """How far it is; None while nothing is known."""

    def path(self, info_hash: InfoHash) -> Path:
        """The content file, whether it is there or not."""


class Outbox(Protocol):
    """The way to the admin server."""

    async def send(self, message: Report | Refusal | Progress) -> bool:
        """Send it if there is a way now. It is repeated by the deployer if it must arrive."""

    def renew_certificate(self) -> None:
        """Ask for a new certificate soon."""


class Installer(Protocol):
    """:func:`p2pdist.install.installers.install`, or what stands for it."""

    async def __call__(
        self, release: Release, artifact: Path, *, layout: InstallLayout, attempt: str
    ) -> InstallResult:
        """Install, or finish what an earlier call with the same attempt began."""
