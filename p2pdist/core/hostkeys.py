"""Keys by which SSH servers are known, and their fingerprints as OpenSSH shows them. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}(?![A-Za-z0-9+/])")


def fingerprint(key: str) -> str:
    """Return the fingerprint of a key that is written as OpenSSH does (``ssh-ed25519 AAAA…``).

    A fingerprint is its own. Empty: it is neither.
    """
    if is_fingerprint(key):
        return key
    words = key.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error, ValueError):
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def is_fingerprint(text: str) -> bool:
    """Whether *text* is a fingerprint."""
    return _FINGERPRINT.fullmatch(text) is not None


def first_fingerprint(text: str) -> str:
    """Return the first fingerprint that stands in a sentence; empty if none does."""
    found = _FINGERPRINT.search(text)
    return found.group() if found is not None else ""
