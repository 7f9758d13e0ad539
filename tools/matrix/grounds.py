"""The laboratory of a matrix: which places there are, and who stands where."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from laboratory.kinds import KINDS
from laboratory.network import Host, Laboratory, Place, Uplink

LINE = Uplink(up_mbit=5, down_mbit=10, delay_ms=10)
"""Each place's line: 40 ms there and back between two places, and an uplink half as fast as the downlink."""

GATEWAY_LINE = Uplink(delay_ms=10)
"""The gateway's is faster than all that it serves at once: the hardest measure for content beside it."""

ROLES = {"left": 0, "caller": 0, "beside": 1}
"""Who stands on which host of a place *here*; ``right`` stands in the one *there*."""


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a node stands: the kind of its place, its role in pairs, its host, and its NAT's address."""

    kind: str
    role: str
    host: Host
    outside: tuple[str, ...]


class Grounds:
    """Builds what a set of nodes needs; gone with the laboratory.

    Attributes:
        server: The admin server's host; the operator who prepares everything sits there, too.
        gateway: The host of the gateway in the open.
        stands: Where each node is, by its name, which is ``KIND-ROLE``.
    """

    def __init__(self, laboratory: Laboratory, names: Collection[str]) -> None:
        self.server = laboratory.server
        self.gateway = laboratory.add("open", uplink=GATEWAY_LINE).hosts[0]
        self.stands: dict[str, Stand] = {}
        for kind in KINDS:
            here = {role: number for role, number in ROLES.items() if f"{kind}-{role}" in names}
            if here:
                self._take(kind, here, laboratory.add(kind, max(here.values()) + 1, LINE))
            if f"{kind}-right" in names:
                self._take(kind, {"right": 0}, laboratory.add(kind, uplink=LINE))

    def _take(self, kind: str, roles: Mapping[str, int], place: Place) -> None:
        self.stands |= {
            f"{kind}-{role}": Stand(kind, role, place.hosts[number], place.outside)
            for role, number in roles.items()
        }
