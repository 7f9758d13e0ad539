"""What the two ends of a session say to each other inside of its TLS.

The initiator asks for a service; the device accepts or refuses; then bytes flow both ways until both sides
have said that nothing follows. In between both sides tell each other how they can be reached, so that the
session can move to a better path: nobody on the way can read or change that.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.frames import Port, Text
from p2pdist.wire.nat import NatBehaviour
from p2pdist.wire.stun import Endpoint


class InSession(msgspec.Struct, frozen=True, kw_only=True, tag_field="frame"):
    """Base of every frame inside of a session."""


class Tunnel(msgspec.Struct, frozen=True, kw_only=True, tag_field="service", tag="tunnel"):
    """TCP connections to a port of the device.

    The bytes of the service are HTTP/2; each connection is a byte stream in it, which the initiator opens
    on :data:`TUNNEL_PATH` and the device accepts once the port has answered.
    """

    port: Port


TUNNEL_PATH: Final = "/connection"


class TunnelOpening(msgspec.Struct, frozen=True, kw_only=True):
    """What such a byte stream is opened with."""


class Echo(msgspec.Struct, frozen=True, kw_only=True, tag_field="service", tag="echo"):
    """Everything that is sent comes back: to measure a path."""


class Logs(msgspec.Struct, frozen=True, kw_only=True, tag_field="service", tag="logs"):
    """The last lines of the device's own log, and with ``follow`` those that come."""

    lines: Annotated[int, Meta(ge=0, le=100_000)] = 100
    follow: bool = False


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True, tag_field="service", tag="diagnosis"):
    """What the device thinks of itself, as one JSON object."""


class Reachability(msgspec.Struct, frozen=True, kw_only=True, tag_field="service", tag="reachability"):
    """What stands before the device, as one :class:`NetworkFacts`; the session stays, to be looked at."""


Service: TypeAlias = Tunnel | Echo | Logs | Diagnosis | Reachability


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a device knows of the network between it and its gateways."""

    nats: Annotated[tuple[NatBehaviour, ...], Meta(max_length=limits.PROBES_MAX)] = ()


class Ask(InSession, frozen=True, kw_only=True, tag="ask"):
    """The initiator's first frame: what it wants."""

    service: Service


class Accepted(InSession, frozen=True, kw_only=True, tag="accepted"):
    """The device's first frame: the service begins.

    ``stun`` is whom the device asks how NATs show it; the initiator asks them, too.
    """

    stun: Annotated[tuple[Endpoint, ...], Meta(max_length=limits.STUN_SERVERS_MAX)] = ()


class Refused(InSession, frozen=True, kw_only=True, tag="refused"):
    """The device's first and last frame: why not."""

    reason: Text


class Chunk(InSession, frozen=True, kw_only=True, tag="chunk"):
    """Bytes of the service."""

    data: Annotated[bytes, Meta(min_length=1, max_length=limits.SESSION_CHUNK_BYTES)]


class ChunksEnd(InSession, frozen=True, kw_only=True, tag="chunks-end"):
    """No more bytes of the service follow from this side."""


class Signal(InSession, frozen=True, kw_only=True, tag="signal"):
    """Of an attempt at a better path, as :mod:`p2pdist.wire.punching` has it."""

    data: Annotated[bytes, Meta(min_length=1, max_length=limits.SESSION_SIGNAL_BYTES_MAX)]


SessionFrame: TypeAlias = Ask | Accepted | Refused | Chunk | ChunksEnd | Signal
