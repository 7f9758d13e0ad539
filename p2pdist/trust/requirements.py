"""What a release asks for, and what its type does not check: prerequisites, mirrors, platforms."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from p2pdist.errors import UsageError
from p2pdist.ids import ProductName, parse_product
from p2pdist.trust.catalog import ReleaseCustom

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


def check_mirror(text: str) -> None:
    """Check the address of a vendor mirror. Raises UsageError."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme == "https" and bool(parts.hostname) and parts.username is None
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
    for text in custom.mirrors:
        check_mirror(text)
