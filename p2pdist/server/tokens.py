"""Making tokens: 256 bits of the system's randomness, in a form that people can tell apart."""

from __future__ import annotations

import secrets


def new_token() -> str:
    """Return a new secret token."""
    return f"p2p_{secrets.token_urlsafe(32)}"


def token_id() -> str:
    """Return an id for a token or a deployment: short, and not secret."""
    return secrets.token_hex(5)
