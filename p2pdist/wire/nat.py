"""What the NATs and filters between a device and its gateway do, in the words of RFC 4787."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist.wire.stun import Endpoint

Dependence: TypeAlias = Literal[
    "endpoint-independent",
    "address-dependent",
    "address-and-port-dependent",
]
"""What a mapping (RFC 4787 section 4.1) or a filter (section 5) takes into account of the other side."""

DEPENDENCES: tuple[Dependence, ...] = (
    "endpoint-independent",
    "address-dependent",
    "address-and-port-dependent",
)

Possible = Annotated[tuple[Dependence, ...], Meta(min_length=1, max_length=3)]
"""What it may be, in the order of :data:`DEPENDENCES`: one if that is known, all three if nothing is."""


class NatBehaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What stands between one device and one gateway, as far as the gateway's answers show it.

    It holds between these two: a gateway on the device's own network sees no NAT. It is a hint for choosing
    a path, not evidence: a gateway can lie about it.

    Attributes:
        gateway: Whom was asked.
        local: Where the device asked from.
        mapped: What the gateway saw of that: the outside endpoint. None: no answer came, so UDP is blocked,
            or the gateway is away.
        mapping: How the NAT chooses the outside endpoint; endpoint-independent where there is no NAT.
        filtering: What is let in from outside, by the NATs, by firewalls on the way and on the device.
        hairpinning: Whether two sockets of the device reached each other through their outside endpoints.
            None: it does not matter (no NAT), or is not known.
        addresses: From how many addresses of the gateway this was seen. From one, endpoint-independent and
            address-dependent look the same.
    """

    gateway: Endpoint
    local: Endpoint
    mapped: Endpoint | None = None
    mapping: Possible = DEPENDENCES
    filtering: Possible = DEPENDENCES
    hairpinning: bool | None = None
    addresses: Annotated[int, Meta(ge=0, le=2)] = 0

    @property
    def udp(self) -> bool:
        """Whether UDP works between the device and the gateway."""
        return self.mapped is not None

    @property
    def translated(self) -> bool:
        """Whether a NAT changes the device's endpoint."""
        return self.mapped is not None and self.mapped != self.local

    @property
    def public(self) -> bool:
        """Whether the device's own address is one that the whole internet can send to."""
        return self.udp and self.mapped == self.local and self.local.ip.is_global

    def describe(self) -> str:
        """Say it in one sentence, for people."""
        if self.mapped is None:
            return f"no answer over UDP from {self.gateway}: UDP is blocked, or the gateway does not answer"
        parts = [f"{_words(self.filtering)} filtering"]
        if self.translated:
            where = f"a NAT shows {self.local} as {self.mapped}"
            parts.insert(0, f"{_words(self.mapping)} mapping")
            if self.hairpinning is not None:
                parts.append("hairpinning" if self.hairpinning else "no hairpinning")
        else:
            where = f"no NAT before {self.local}" + (", a public address" if self.public else "")
        sure = len(self.mapping) == len(self.filtering) == 1
        doubt = " (a gateway with two addresses would know more)" if self.addresses == 1 and not sure else ""
        return f"{where}: {', '.join(parts)}{doubt}"


def _words(possible: tuple[Dependence, ...]) -> str:
    return "unknown" if len(possible) == len(DEPENDENCES) else " or ".join(possible)
