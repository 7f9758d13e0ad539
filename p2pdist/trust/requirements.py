"""What a release asks for, and what its type does not check: prerequisites, mirrors, platforms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

import msgspec

from p2pdist.errors import UsageError
from p2pdist.ids import ProductName, parse_product
from p2pdist.trust.catalog import Delta, Mirror, ReleaseCustom

PLATFORMS = (
    "any",
    "linux",
    *(
        f"linux-{architecture}"
        for architecture in (
            *("x86_64", "aarch64", "i686", "armv6l", "armv7l"),
            *("riscv64", "ppc64le", "s390x", "loongarch64"),
        )
    ),
)
"""The platforms that a device can have, as it names itself (uname(2)), and what covers several."""

_MIRROR = re.compile(r"(?P<url>[^,].*?)(?P<said>(,(priority|region)=[^,]*)*)\Z", re.ASCII)
_PREREQUISITE = re.compile(r"([^>=]{1,200})>=([0-9]{1,16})\Z", re.ASCII)
_ALIASES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "i386": "i686"}


def parse_prerequisite(text: str) -> tuple[ProductName, int]:
    """Read ``product>=sequence``. Raises UsageError."""
    match = _PREREQUISITE.match(text)
    if match is None:
        raise UsageError(
            f"{text[:60]!r} is not a prerequisite", hint="write PRODUCT>=SEQUENCE, such as base>=4"
        )
    return parse_product(match[1]), int(match[2])


def parse_mirror(text: str) -> str | Mirror:
    """Read ``https://HOST/PATH[,priority=N][,region=R]``. Raises UsageError.

    It stays a string when nothing is said of it: devices with older software understand that, too.
    """
    match = _MIRROR.match(text)
    if match is None or not match["said"]:
        check_mirror(text)
        return text
    check_mirror(match["url"])
    said = [part.partition("=")[::2] for part in match["said"][1:].split(",")]
    fields: dict[str, object] = {
        name: int(v) if v.isdecimal() else v for name, v in said if name == "priority"
    }
    fields |= {name: value for name, value in said if name == "region"}
    try:
        mirror = msgspec.convert({"url": match["url"], **fields}, Mirror)
    except msgspec.ValidationError:
        mirror = None
    if mirror is None or len(fields) < len(said):
        raise UsageError(
            f"{text[:120]!r} is not a mirror with its priority and region",
            hint="write https://HOST/PATH,priority=10,region=eu with a priority from 0 to 255",
        )
    return mirror if mirror != Mirror(url=mirror.url) else mirror.url


def mirrors_of(said: Iterable[str | Mirror]) -> tuple[Mirror, ...]:
    """Return the mirrors that a release names, in that order, each address once."""
    mirrors = [Mirror(url=each) if isinstance(each, str) else each for each in said]
    found: dict[str, Mirror] = {}
    for mirror in mirrors:
        found.setdefault(mirror.url, mirror)
    return tuple(found.values())


def check_mirror(text: str, *, plain: bool = False) -> None:
    """Check the address of a vendor mirror; *plain* ones, without TLS, are for what is signed.

    Raises:
        UsageError: it is none.
    """
    schemes = ("https", "http") if plain else ("https",)
    try:
        parts = urlsplit(text)
        valid = parts.scheme in schemes and bool(parts.hostname) and parts.username is None
        _ = parts.port
    except ValueError:
        valid = False
    if not valid or not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError(
            f"{text[:120]!r} is not a mirror's address",
            hint="write https://HOST/PATH; nothing else is fetched",
        )


def check_platform(text: str) -> None:
    """Check that a device can have this platform. Raises UsageError, suggesting the nearest."""
    if text in PLATFORMS:
        return
    import difflib  # an endpoint, whose platform is right, does without

    system, _, architecture = text.lower().partition("-")
    meant = f"linux-{_ALIASES.get(architecture or system, architecture or system)}"
    near = [meant] if meant in PLATFORMS else difflib.get_close_matches(text, PLATFORMS, n=1)
    raise UsageError(
        f"no device has the platform {text[:60]!r}",
        hint=f"did you mean {near[0]}?" if near else f"there are: {', '.join(PLATFORMS)}",
    )


def check_forms(custom: ReleaseCustom) -> None:
    """Check what the type of a release does not. Raises UsageError."""
    for text in custom.prerequisites:
        parse_prerequisite(text)
    for mirror in mirrors_of(custom.mirrors):
        check_mirror(mirror.url)


def check_deltas(deltas: Sequence[Delta], info_hash: str) -> None:
    """Check that a release has one delta from each base, and none that is its artifact. Raises UsageError."""
    bases = [delta.base for delta in deltas]
    if len(set(bases)) < len(bases) or info_hash in {*bases, *(delta.info_hash for delta in deltas)}:
        raise UsageError("its deltas name a base twice, or its own artifact")
