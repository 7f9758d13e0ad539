"""What a device fetches for itself: which artifacts, how far they are, what went wrong, when to retry.

Knows nothing of deployments. Its owner says which artifacts are wanted, and passes on what the content
plane reports; out come the commands :class:`Fetch`, :class:`StopFetching` and :class:`ForgetArtifact`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from p2pdist.ids import InfoHash
from p2pdist.trust.catalog import Release

_AGAIN_FIRST_S = 5.0
_AGAIN_MAX_S = 900.0
_SOURCES_REMEMBERED_MAX = 512  # per artifact: one refusal for each source is told, not one per piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Fetch the release's artifact, or go on serving it. Repeating the command changes nothing."""

    release: Release


@dataclass(frozen=True, slots=True, kw_only=True)
class StopFetching:
    """The device needs this artifact no longer for now. What is on the disk may stay."""

    info_hash: InfoHash


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetArtifact:
    """Stop, and free the disk: the bytes turned out to be bad, or nobody wants them any more."""

    info_hash: InfoHash


FetchCommand: TypeAlias = Fetch | StopFetching | ForgetArtifact


@dataclass(slots=True, kw_only=True)
class Transfer:
    """One artifact. Read by the owner, changed here only. Times are monotonic seconds."""

    release: Release
    running: bool = False
    complete: bool = False
    bad: bool = False
    """What was on the disk is to be thrown away: news of it are late until it is fetched again."""
    fraction: float = 0.0
    rate_bytes_per_s: int = 0
    sources: int = 0
    trouble: str = ""
    waits: str = ""
    """Why nobody serves it now."""
    not_before_s: float = 0.0
    failures: int = 0
    starved_since_s: float | None = None
    """When bytes were first refused without any good ones since."""
    refused_sources: set[str] = field(default_factory=set)

    def pauses(self, now_s: float) -> bool:
        """Whether it waits before it is tried again."""
        return not self.running and now_s < self.not_before_s


class Fetches:
    """All transfers of one device."""

    def __init__(self) -> None:
        self._transfers: dict[InfoHash, Transfer] = {}
        self._commands: list[FetchCommand] = []

    def get(self, info_hash: InfoHash) -> Transfer | None:
        """Return what is known of an artifact; None if it is not wanted."""
        return self._transfers.get(info_hash)

    def set_wanted(self, wanted: Mapping[InfoHash, Release], *, now_s: float) -> None:
        """Start what is wanted and may start, stop what is not wanted any more."""
        for info_hash in [i for i in self._transfers if i not in wanted]:
            if self._transfers.pop(info_hash).running:
                self._commands.append(StopFetching(info_hash=info_hash))
        for info_hash, release in wanted.items():
            transfer = self._transfers.setdefault(info_hash, Transfer(release=release))
            transfer.release = release
            if not transfer.running and now_s >= transfer.not_before_s:
                transfer.running, transfer.bad = True, False
                self._commands.append(Fetch(release=release))

    def progressed(
        self, info_hash: InfoHash, fraction: float, rate: int, sources: int, waits: str = ""
    ) -> bool:
        """Good bytes arrived, or did not: how far the artifact is now, and why nobody serves it if so.

        Returns:
            Whether that it waits, or for what, is news.
        """
        transfer = self._transfers.get(info_hash)
        if transfer is None or transfer.complete or transfer.bad:
            return False
        if fraction > transfer.fraction:
            transfer.running, transfer.trouble, transfer.starved_since_s = True, "", None
        transfer.fraction = min(1.0, max(0.0, fraction))
        transfer.rate_bytes_per_s, transfer.sources = max(0, rate), max(0, sources)
        before, transfer.waits = transfer.waits, waits
        return waits != before

    def finished(self, info_hash: InfoHash) -> bool:
        """The artifact is complete on the disk. Returns False if that is no news."""
        transfer = self._transfers.get(info_hash)
        if transfer is None or transfer.complete or transfer.bad:
            return False
        transfer.running = True
        transfer.complete, transfer.fraction, transfer.rate_bytes_per_s = True, 1.0, 0
        transfer.trouble, transfer.waits, transfer.starved_since_s = "", "", None
        return True

    def refused(self, info_hash: InfoHash, source: str, reason: str, *, now_s: float) -> bool:
        """Bytes from *source* were thrown away. Returns whether that source is new to this transfer."""
        transfer = self._transfers.get(info_hash)
        if transfer is None:
            return False
        if not transfer.complete:
            transfer.trouble = reason
            if transfer.starved_since_s is None:
                transfer.starved_since_s = now_s
        known = source in transfer.refused_sources
        if not known and len(transfer.refused_sources) < _SOURCES_REMEMBERED_MAX:
            transfer.refused_sources.add(source)
            return True
        return False

    def take_starved(self, *, now_s: float, patience_s: float) -> list[InfoHash]:
        """Return the artifacts that have had bad bytes and no good ones for *patience_s*, each once."""
        starved = []
        for info_hash, transfer in self._transfers.items():
            if transfer.starved_since_s is not None and now_s >= transfer.starved_since_s + patience_s:
                transfer.starved_since_s = None
                starved.append(info_hash)
        return starved

    def storage_failed(self, info_hash: InfoHash, reason: str, *, now_s: float) -> None:
        """The disk does not take the artifact. It is asked for again later, less and less often."""
        transfer = self._transfers.get(info_hash)
        if transfer is not None and not transfer.complete:
            transfer.trouble = reason
            transfer.running = False
            self._back_off(transfer, now_s)

    def start_over(self, info_hash: InfoHash, reason: str, *, now_s: float) -> None:
        """What is on the disk is bad. It goes, and the artifact is fetched from nothing, later."""
        self._commands.append(ForgetArtifact(info_hash=info_hash))
        transfer = self._transfers.get(info_hash)
        if transfer is None:
            return
        transfer.trouble = reason
        transfer.running, transfer.complete, transfer.bad = False, False, True
        transfer.fraction, transfer.rate_bytes_per_s, transfer.sources = 0.0, 0, 0
        self._back_off(transfer, now_s)

    def forget(self, info_hash: InfoHash) -> None:
        """Nobody on this device wants the artifact."""
        self._transfers.pop(info_hash, None)
        self._commands.append(ForgetArtifact(info_hash=info_hash))

    def take_commands(self) -> list[FetchCommand]:
        """Return what is to be done, in order."""
        commands, self._commands = self._commands, []
        return commands

    def next_deadline(self, *, patience_s: float) -> float | None:
        """When a transfer may start again, or has had no good bytes for *patience_s*."""
        deadlines = [t.not_before_s for t in self._transfers.values() if not t.running]
        deadlines += [
            t.starved_since_s + patience_s for t in self._transfers.values() if t.starved_since_s is not None
        ]
        return min(deadlines, default=None)

    def _back_off(self, transfer: Transfer, now_s: float) -> None:
        transfer.not_before_s = now_s + min(_AGAIN_MAX_S, _AGAIN_FIRST_S * 2.0 ** min(transfer.failures, 16))
        transfer.failures += 1
