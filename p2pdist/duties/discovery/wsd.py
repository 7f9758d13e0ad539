"""Who speaks WS-Discovery on the node's own segments: Windows, printers, scanners, Samba with wsdd.

A probe goes to everybody, and where it is not said, the question where a device can be asked for more
(WS-Discovery 2005/04, sections 5 and 6). Then each is asked for its name with a WS-Transfer Get (Devices
Profile for Web Services 2006/02, section 5), at the address that its answer came from and nowhere else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from ipaddress import ip_address

import h11
import trio

from p2pdist import limits
from p2pdist.duties.discovery.segments import Everybody, ask
from p2pdist.duties.discovery.wsdmessages import Match, get, probe, read_match, read_metadata, resolve
from p2pdist.errors import PeerError
from p2pdist.wire.discovery import Sighting

_EVERYBODY = Everybody(ipv4="239.255.255.250", ipv6="ff02::c", port=3702, hops=1)
_GET_S = 5.0  # to connect, ask and read; it is next door


def sighting_of(match: Match, names: list[str]) -> Sighting:
    """Return what was found: a device at an address, with the names that it has told."""
    services = [f"wsd:{kind}" for kind in match.types][: limits.SIGHTING_SERVICES_MAX]
    return Sighting(method="wsd", addresses=[match.source], names=names, services=services)


@trio.as_safe_channel
async def poll() -> AsyncGenerator[Sighting, None]:
    """Ask everybody on the node's segments, then each for its name; yield each that answered."""
    matches = await _matches([probe()])
    unknown = sorted({match.endpoint for match in matches.values() if match.port is None})
    if unknown:
        told = await _matches([resolve(endpoint) for endpoint in unknown[: limits.WSD_RESOLVED_MAX]])
        for key in matches.keys() & told.keys():
            matches[key] = replace(matches[key], port=told[key].port, path=told[key].path)
    send, found = trio.open_memory_channel[Sighting](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_names_of_all, list(matches.values()), send)
        async for sighting in found:
            yield sighting


async def _matches(questions: list[bytes]) -> dict[tuple[str, str], Match]:
    found: dict[tuple[str, str], Match] = {}
    async with ask(_EVERYBODY, questions) as answers:
        async for answer in answers:
            try:
                match = read_match(answer.data, answer.source)
            except PeerError:
                continue
            found.setdefault((match.source, match.endpoint), match)
    return found


async def _names_of_all(matches: list[Match], send: trio.MemorySendChannel[Sighting]) -> None:
    room = trio.Semaphore(limits.WSD_METADATA_AT_ONCE)
    async with send, trio.open_nursery() as nursery:
        for match in matches:
            await room.acquire()
            nursery.start_soon(_name_of, match, room, send)


async def _name_of(match: Match, room: trio.Semaphore, send: trio.MemorySendChannel[Sighting]) -> None:
    names: list[str] = []
    try:
        with trio.move_on_after(_GET_S):
            names = read_metadata(await _get(match))
    except (PeerError, OSError, trio.BrokenResourceError, h11.ProtocolError):
        pass  # it is there all the same
    finally:
        room.release()
    await send.send(sighting_of(match, names))


async def _get(match: Match) -> bytes:
    if match.port is None:
        raise PeerError(f"{match.source} does not say where it says more")
    body = get(match)
    host = f"[{match.source}]" if ip_address(match.source).version == 6 else match.source
    headers = [
        ("Host", f"{host}:{match.port}"),
        ("Content-Type", "application/soap+xml"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=8 * limits.KIB)
    async with await trio.open_tcp_stream(match.source, match.port) as stream:
        request = h11.Request(method="POST", target=match.path, headers=headers)
        said = b"".join(filter(None, map(http.send, (request, h11.Data(data=body), h11.EndOfMessage()))))
        await stream.send_all(said)
        answer = b""
        while len(answer) <= limits.WSD_METADATA_BYTES_MAX:
            match http.next_event():
                case h11.NEED_DATA:
                    http.receive_data(await stream.receive_some(16 * limits.KIB))
                case h11.Data(data=data):
                    answer += bytes(data)
                case h11.EndOfMessage() | h11.ConnectionClosed():
                    break
                case _:
                    continue
        return answer
