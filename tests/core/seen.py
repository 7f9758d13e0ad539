"""What tests of the inventory see."""

from __future__ import annotations

from typing import Any

from p2pdist.core.identities import Evidence
from p2pdist.core.inventory import key_of
from p2pdist.ids import node_id_of
from p2pdist.wire.discovery import Method, Sighting

NOW = 1_800_000_000
NODES = [node_id_of(bytes([number]) * 32) for number in range(4)]
GUIDS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(4)]
MACS = [f"00:1b:21:00:00:0{number}" for number in range(4)]


def seen(
    *,
    network: str = "berlin",
    method: Method | None = None,
    first: int = NOW,
    last: int = NOW,
    **fields: Any,
) -> Evidence:
    """Evidence, as a rule by the method that may say such a thing."""
    if method is None:
        method = "managed" if fields.get("node") else "directory" if fields.get("guid") else "neighbours"
    sighting = Sighting(method=method, **fields)
    return Evidence(key=key_of(sighting, network), network=network, sighting=sighting, first=first, last=last)
