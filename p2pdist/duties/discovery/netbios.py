"""The NetBIOS names of addresses: what Windows and Samba say of themselves (RFC 1002, section 4.2.17)."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator, Sequence
from ipaddress import IPv4Address

import trio

from p2pdist import limits
from p2pdist.duties.discovery.pace import Pace
from p2pdist.errors import PeerError
from p2pdist.wire.discovery import Sighting, printable

_PORT = 137
_HEADER = struct.Struct(">HHHHHH")  # id, flags, questions, answers, authorities, additionals
_NAME = b"*" + bytes(15)
_ENCODED_NAME = bytes([32]) + bytes(65 + half for b in _NAME for half in (b >> 4, b & 15)) + b"\0"
_NBSTAT, _IN = 0x21, 1
_ANSWER = struct.Struct(">HHIH")  # type, class, life, length
_ENTRY = struct.Struct(">15sBH")  # name, its use, flags
_GROUP = 0x8000
_WORKSTATION, _SERVER = 0x00, 0x20
_NO_MAC = bytes(6)


def question(number: int) -> bytes:
    """Return the question for everything that a node calls itself."""
    return _HEADER.pack(number, 0, 1, 0, 0, 0) + _ENCODED_NAME + struct.pack(">HH", _NBSTAT, _IN)


def read_answer(data: bytes, source: str) -> Sighting:
    """Read what a node at the address *source* calls itself.

    Raises:
        PeerError: it is no answer to such a question.
    """
    try:
        _, flags, _, answers, _, _ = _HEADER.unpack_from(data)
        kind, where, _, _ = _ANSWER.unpack_from(data, start := _HEADER.size + len(_ENCODED_NAME))
        start += _ANSWER.size
        names = [_ENTRY.unpack_from(data, start + 1 + n * _ENTRY.size) for n in range(data[start])]
    except (struct.error, IndexError) as error:
        raise PeerError(f"a NetBIOS answer of {source} is cut off ({error})") from None
    if not flags & 0x8000 or not answers or (kind, where) != (_NBSTAT, _IN):
        raise PeerError(f"{source} does not answer what a NetBIOS node is asked")
    own = [_text(name) for name, use, flags in names if not flags & _GROUP and use == _WORKSTATION]
    after = start + 1 + len(names) * _ENTRY.size
    mac = data[after : after + 6]
    return Sighting(
        method="netbios",
        addresses=[source],
        names=list(dict.fromkeys(filter(None, own)))[: limits.SIGHTING_NAMES_MAX],
        macs=[mac.hex(":")] if len(mac) == 6 and mac != _NO_MAC else [],
        services=["smb"] if any(use == _SERVER for _, use, _ in names) else [],
    )


def _text(name: bytes) -> str:
    return printable(name.decode("cp850"))


@trio.as_safe_channel
async def poll(addresses: Sequence[IPv4Address], *, per_s: float) -> AsyncGenerator[Sighting, None]:
    """Ask each address what it calls itself, and yield those that answer.

    Args:
        addresses: In the order in which they are asked.
        per_s: How many are asked in a second.
    """
    asked = {str(address): number & 0xFFFF for number, address in enumerate(addresses)}
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        await opened.bind(("", 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ask, opened, asked, per_s)
            while asked:
                try:
                    data, (source, port, *_) = await opened.recvfrom(limits.DISCOVERY_ANSWER_BYTES_MAX)
                except trio.ClosedResourceError:
                    break
                except OSError:
                    continue  # somebody's refusal
                number = asked.get(source)
                if number is None or port != _PORT or data[:2] != number.to_bytes(2, "big"):
                    continue  # nobody asked for that
                del asked[source]
                try:
                    sighting = read_answer(data, source)
                except PeerError:
                    continue
                yield sighting
            nursery.cancel_scope.cancel()


async def _ask(opened: trio.socket.SocketType, asked: dict[str, int], per_s: float) -> None:
    pace = Pace(per_s)
    for address, number in list(asked.items()):
        await pace.turn()
        try:
            await opened.sendto(question(number), (address, _PORT))
        except OSError:
            continue  # no way there
    await trio.sleep(limits.DISCOVERY_ANSWER_S)
    opened.close()
