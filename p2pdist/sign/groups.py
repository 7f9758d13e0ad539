"""How the commands are grouped in the help."""

from __future__ import annotations

from cyclopts import Group

KEYS, CONTENT, SIGNING, PUBLICATION = (
    Group.create_ordered(name) for name in ("Keys", "Content", "Signing", "Publication")
)
