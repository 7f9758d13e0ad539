"""The datagram that has a resting device come for its messages, and where such a device listens.

::

    p2w1 (4)  |  tag (8)  |  nonce (24)  |  Poly1305 tag (16)  |  sealed (18)
    sealed:  counter (8)  |  expires (8)  |  reason (1)  |  flags (1)

70 bytes over UDP, always. The tag names the recipient, and only the recipient and the admin server know it;
everybody else's datagrams are dropped at a comparison of twelve bytes. Integers are big-endian. Sealing and
opening live in :mod:`p2pdist.trust.wakes`. A device gives no answer to it: it links, as it always does.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError
from p2pdist.wire.frames import Endpoint, NodeIdText, Port

MAGIC: Final = b"p2w1"
TAG_BYTES: Final = 8
NONCE_BYTES: Final = 24
WAKE_BYTES: Final = struct.calcsize(">QQBB")
DATAGRAM_BYTES: Final = len(MAGIC) + TAG_BYTES + NONCE_BYTES + 16 + WAKE_BYTES
WAKE_PORT: Final = 7604
"""Where a resting device listens, unless its configuration says otherwise."""

WakeReason = Literal["synchronise", "deployment", "session"]
_REASONS: Final[tuple[WakeReason, ...]] = ("synchronise", "deployment", "session")
_WAKE: Final = struct.Struct(">QQBB")
_FROM_SLEEP: Final = 1

Mac = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$", max_length=17)]
"""A network interface's hardware address, in lower case."""
Datagram = Annotated[bytes, Meta(min_length=DATAGRAM_BYTES, max_length=DATAGRAM_BYTES)]


class Wake(msgspec.Struct, frozen=True, kw_only=True):
    """What is inside: come now.

    ``counter`` grows with every wake of one device and never repeats. ``expires`` is in Unix seconds.
    ``from_sleep`` is said along with a Wake-on-LAN packet: if the machine was asleep, it was woken for this
    alone.
    """

    counter: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    expires: Annotated[int, Meta(ge=0, le=2**40)]
    reason: WakeReason
    from_sleep: bool = False


def encode_wake(wake: Wake) -> bytes:
    """Return what is to be sealed: always :data:`WAKE_BYTES`."""
    flags = _FROM_SLEEP if wake.from_sleep else 0
    return _WAKE.pack(wake.counter, wake.expires, _REASONS.index(wake.reason), flags)


def decode_wake(data: bytes) -> Wake:
    """Parse what was sealed. A reason of a newer admin server is one to synchronise; its flags are ignored.

    Raises:
        PeerError: it is no wake.
    """
    if len(data) != WAKE_BYTES:
        raise PeerError(f"a wake of {len(data)} bytes")
    counter, expires, reason, flags = _WAKE.unpack(data)
    if not 1 <= counter < 2**63 or expires > 2**40:
        raise PeerError("a wake with numbers that no admin server uses")
    return Wake(
        counter=counter,
        expires=expires,
        reason=_REASONS[reason] if reason < len(_REASONS) else "synchronise",
        from_sleep=bool(flags & _FROM_SLEEP),
    )


def magic_packet(mac: str) -> bytes:
    """Return what wakes a sleeping machine whose interface has this address.

    Six bytes of ones, and the address sixteen times ("Magic Packet Technology", AMD publication 20213).

    Raises:
        UsageError: it is no hardware address.
    """
    try:
        address = bytes.fromhex(mac.replace(":", ""))
    except ValueError:
        address = b""
    if len(address) != 6:
        raise UsageError(f"{mac!r} is no hardware address", hint="write it as 02:00:00:00:00:07")
    return b"\xff" * 6 + address * 16


class WakePlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where a device listens for wakes while it rests: in its heartbeats.

    ``macs`` are its interfaces' hardware addresses, if its machine may be asleep then.
    """

    port: Port
    addresses: Annotated[
        list[Annotated[str, Meta(min_length=2, max_length=45)]], Meta(max_length=limits.WAKE_ADDRESSES_MAX)
    ]
    macs: Annotated[list[Mac], Meta(max_length=limits.WAKE_ADDRESSES_MAX)] = msgspec.field(
        default_factory=list
    )


class WakeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Have a distribution point wake one device: send ``datagram`` until it comes.

    Where the device may be asleep, ``magic`` is the datagram that goes along with Wake-on-LAN packets to
    ``macs``.
    """

    node: NodeIdText
    endpoints: Annotated[list[Endpoint], Meta(max_length=limits.WAKE_ADDRESSES_MAX)]
    port: Port
    """For the whole segment."""
    datagram: Datagram
    macs: Annotated[list[Mac], Meta(max_length=limits.WAKE_ADDRESSES_MAX)] = msgspec.field(
        default_factory=list
    )
    magic: Datagram | None = None
