"""What the indexes of an ``apt`` repository say: ``InRelease``, and ``Packages``. Pure.

The signed ``InRelease`` has the size and the SHA-256 of each ``Packages``, which has those of each package;
so what one of the repository's keys has signed is everything that is believed. ``docs/decisions/0163``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from fnmatch import translate
from urllib.parse import quote

from p2pdist import limits
from p2pdist.core.deb822 import Paragraphs
from p2pdist.core.debversions import VersionKey, version_key
from p2pdist.errors import PeerError, TrustError, UsageError
from p2pdist.ids import parse_product
from p2pdist.wire.following import AptSource, Offer, checked_offer

_RELEASE_FIELDS = ("date", "valid-until", "suite", "codename", "acquire-by-hash", "sha256")
PACKAGE_FIELDS = ("package", "version", "architecture", "filename", "size", "sha256")
_PACKINGS = (".xz", ".gz", "")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_NUMBER = re.compile(r"[0-9]{1,15}\Z", re.ASCII)
_PATH = re.compile(r"[a-zA-Z0-9._+~=@:%/-]{1,512}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A file of the repository, as a signed index describes it."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseIndex:
    """An ``InRelease``. Moments are Unix seconds."""

    date: int
    valid_until: int | None
    names: frozenset[str]
    by_hash: bool
    files: Mapping[str, Listed]


def parse_release(data: bytes) -> ReleaseIndex:
    """Read what was signed of an ``InRelease``. Raises PeerError."""
    reader = Paragraphs(_RELEASE_FIELDS, bytes_max=limits.RELEASE_BYTES_MAX)
    paragraphs = [*reader.feed(data), *reader.finish()]
    if len(paragraphs) != 1:
        raise PeerError("the InRelease is not one paragraph")
    fields = paragraphs[0]
    valid_until = fields.get("valid-until")
    return ReleaseIndex(
        date=_moment(fields.get("date", ""), "Date"),
        valid_until=_moment(valid_until, "Valid-Until") if valid_until is not None else None,
        names=frozenset(filter(None, (fields.get("suite"), fields.get("codename")))),
        by_hash=fields.get("acquire-by-hash", "").lower() == "yes",
        files={listed.path: listed for listed in _listed(fields.get("sha256", ""))},
    )


def check_release(release: ReleaseIndex, source: AptSource, *, seen: int, now: int) -> None:
    """Check that an ``InRelease`` is the newest that can be.

    Args:
        release: What was signed.
        source: What is followed.
        seen: The date of the newest one that was seen, Unix seconds.
        now: Unix seconds.

    Raises:
        TrustError: it is of another suite, has expired, is older than one that was seen, or from the future.
    """
    if release.names and source.suite not in release.names and not source.suite.endswith("/"):
        names = ", ".join(sorted(release.names))
        raise TrustError(f"the InRelease is of {names[:100]}, and not of {source.suite}")
    if release.valid_until is not None and release.valid_until < now:
        raise TrustError(
            f"the InRelease has expired on {_words(release.valid_until)}",
            hint="the mirror is behind, or holds back what is newer; or the clock of this node is wrong",
        )
    check_date(release.date, "the InRelease", seen=seen, now=now)


def check_date(date: int, what: str, *, seen: int, now: int) -> None:
    """Check that a signed index is no older than *seen*. All in Unix seconds. Raises TrustError."""
    if date < seen:
        raise TrustError(
            f"{what} of {_words(date)} is older than the one of {_words(seen)} that was there before",
            hint="the mirror is behind, or has gone back on purpose; versions of it are not taken",
        )
    if date > now + limits.FOLLOW_AHEAD_S_MAX:
        raise TrustError(f"{what} is of {_words(date)}, which is in the future", hint="check the clock")


def packages_index(release: ReleaseIndex, component: str, architecture: str) -> Listed:
    """Return the ``Packages`` of a component, the best packed one; a flat repository has only one.

    Raises:
        UsageError: the repository has none for it.
        PeerError: it is too large.
    """
    path = f"{component}/binary-{architecture}/Packages" if component else "Packages"
    listed = next((release.files[path + end] for end in _PACKINGS if path + end in release.files), None)
    if listed is None:
        raise UsageError(f"the repository has no {path}", hint="compare its components and architectures")
    if listed.size_bytes > limits.PACKAGES_PACKED_BYTES_MAX:
        raise PeerError(f"{listed.path} has {listed.size_bytes} bytes, which is too much for an index")
    return listed


class NewestPackages:
    """Looks through ``Packages`` for the newest version of each wanted package.

    What is wanted and cannot be a release (its name, its version, where it is) is in ``left_out``, with the
    reason.
    """

    def __init__(self, source: AptSource) -> None:
        self._source = source
        self._wanted = re.compile("|".join(translate(glob) for glob in source.packages))
        self._newest: dict[tuple[str, str], tuple[VersionKey, Offer]] = {}
        self.left_out: dict[str, str] = {}

    def take(self, packages: Iterable[Mapping[str, str]], architectures: Collection[str]) -> None:
        """Take an index's paragraphs in, those of *architectures* and of all. Raises PeerError: too many."""
        for fields in packages:
            name = fields.get("package", "")
            if not self._wanted.match(name) or fields.get("architecture") not in (*architectures, "all"):
                continue
            try:
                self._consider(name, fields)
            except (PeerError, UsageError) as error:
                self.left_out[name[:100]] = error.what
            if len(self._newest) + len(self.left_out) > limits.FOLLOW_OFFERS_MAX:
                raise PeerError(
                    f"more than {limits.FOLLOW_OFFERS_MAX} packages are wanted",
                    hint="choose fewer, or make several tasks",
                )

    def offers(self) -> list[Offer]:
        """Return what was found, in the order of names."""
        return [offer for _, (_, offer) in sorted(self._newest.items())]

    def _consider(self, name: str, fields: Mapping[str, str]) -> None:
        key = version_key(fields.get("version", ""))
        place = (name, fields["architecture"])
        known = self._newest.get(place)
        if known is not None and known[0] >= key:
            return
        size, sha256 = fields.get("size", ""), fields.get("sha256", "").lower()
        if not _NUMBER.match(size) or not _SHA256.match(sha256):
            raise PeerError("its index has no size or no SHA-256 for it")
        path = _checked_path(fields.get("filename", ""))
        offer = checked_offer(
            product=parse_product(name),
            version=fields["version"],
            architecture=fields["architecture"],
            url=f"{self._source.url.rstrip('/')}/{quote(path)}",
            file=path.rpartition("/")[2],
            size_bytes=int(size),
            sha256=sha256,
            signed=True,
        )
        self._newest[place] = (key, offer)


def _checked_path(text: str) -> str:
    """Return a path below the repository, without what leads out of it. Raises PeerError."""
    parts = text.removeprefix("./").split("/")
    if not _PATH.match(text) or any(part in ("", ".", "..") for part in parts):
        raise PeerError("its index says no usable place for it")
    return "/".join(parts)


def _listed(text: str) -> Iterable[Listed]:
    lines = text.split("\n")
    if len(lines) > limits.RELEASE_FILES_MAX:
        raise PeerError(f"the InRelease lists more than {limits.RELEASE_FILES_MAX} files")
    for line in lines:
        match line.split():
            case [sha256, size, path] if _SHA256.match(sha256) and _NUMBER.match(size):
                yield Listed(path=path, size_bytes=int(size), sha256=sha256)
            case []:
                continue
            case _:
                raise PeerError("the InRelease has a line that describes no file")


def _moment(text: str, field: str) -> int:
    try:
        moment = parsedate_to_datetime(text)
        seconds = int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        seconds = -1
    if not 0 <= seconds <= 2**40:
        raise PeerError(f"the InRelease has no usable {field}")
    return seconds


def _words(moment: int) -> str:
    return f"{datetime.fromtimestamp(min(moment, 2**37), UTC):%Y-%m-%d %H:%M} UTC"
