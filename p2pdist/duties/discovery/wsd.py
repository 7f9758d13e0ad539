"""Who speaks WS-Discovery on the node's own segments: Windows, printers, scanners, Samba with wsdd.

A probe goes to everybody (WS-Discovery 2005/04, section 5); who answers is asked for its name with a
WS-Transfer Get (Devices Profile for Web Services 2006/02, section 5), at the address that the answer came
from and nowhere else.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import h11
import trio

from p2pdist import limits
from p2pdist.duties.discovery.segments import Everybody, ask
from p2pdist.duties.discovery.xmltexts import read_texts
from p2pdist.errors import PeerError
from p2pdist.wire.discovery import Sighting, canonical_address, printable

_EVERYBODY = Everybody(ipv4="239.255.255.250", ipv6="ff02::c", port=3702, hops=1)
_SOAP = "http://www.w3.org/2003/05/soap-envelope"
_ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
_DISCOVERY = "http://schemas.xmlsoap.org/ws/2005/04/discovery"
_PROFILE = "http://schemas.xmlsoap.org/ws/2006/02/devprof"
_PUBLICATION = "http://schemas.microsoft.com/windows/pub/2005/07"
_GET = "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get"
_ENDPOINT = f"{_ADDRESSING} Address"
_XADDRS = f"{_DISCOVERY} XAddrs"
_TYPES = f"{_DISCOVERY} Types"
_COMPUTER = f"{_PUBLICATION} Computer"
_FRIENDLY = f"{_PROFILE} FriendlyName"
_ANONYMOUS = f"{_ADDRESSING}/role/anonymous"
_URN = re.compile(r"urn:uuid:[0-9a-fA-F-]{36}\Z")
_GET_S = 5.0  # to connect, ask and read; it is next door


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A device that answered a probe: its endpoint, and the port and path where it says more."""

    source: str
    endpoint: str
    types: tuple[str, ...]
    port: int | None = None
    path: str = "/"


def probe() -> bytes:
    """Return a question for every device. Responders look for the prefix ``wsdp``, as it stands here."""
    return _envelope(
        to="urn:schemas-xmlsoap-org:ws:2005:04:discovery",
        action=f"{_DISCOVERY}/Probe",
        body=f'<d:Probe><d:Types xmlns:wsdp="{_PROFILE}">wsdp:Device</d:Types></d:Probe>',
    )


def read_match(data: bytes, source: str) -> Match:
    """Read an answer to a probe.

    Raises:
        PeerError: it is none.
    """
    found = read_texts(data, (_ENDPOINT, _XADDRS, _TYPES), bytes_max=limits.DISCOVERY_ANSWER_BYTES_MAX)
    endpoints = [text for text in map(str.strip, found.get(_ENDPOINT, [])) if _URN.match(text)]
    if not endpoints:
        raise PeerError(f"{source} answers a probe without saying who it is")
    types = {printable(kind.rpartition(":")[2], 59) for kind in " ".join(found.get(_TYPES, [])).split()}
    match = Match(source=source, endpoint=endpoints[0], types=tuple(sorted(types - {""})))
    for url in " ".join(found.get(_XADDRS, [])).split():
        if (where := _own(url, source)) is not None:
            return Match(
                source=source, endpoint=match.endpoint, types=match.types, port=where[0], path=where[1]
            )
    return match


def _own(url: str, source: str) -> tuple[int, str] | None:
    """Return port and path of a URL at the address *source*; None for any other one."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        return None
    plain = parts.scheme == "http" and url.isascii() and url.isprintable()
    return (port, parts.path or "/") if plain and canonical_address(parts.hostname or "") == source else None


def read_metadata(data: bytes) -> list[str]:
    """Return the names in what a device says of itself: its computer's, else the one for people.

    Raises:
        PeerError: it is no XML that we take.
    """
    found = read_texts(data, (_COMPUTER, _FRIENDLY), bytes_max=limits.WSD_METADATA_BYTES_MAX)
    computers = [re.split(r"[/\\]", text)[0] for text in found.get(_COMPUTER, [])]
    names = [printable(text, 255) for text in computers or found.get(_FRIENDLY, [])]
    return list(dict.fromkeys(filter(None, names)))[: limits.SIGHTING_NAMES_MAX]


def _sighting(match: Match, names: list[str]) -> Sighting:
    services = [f"wsd:{kind}" for kind in match.types][: limits.SIGHTING_SERVICES_MAX]
    return Sighting(method="wsd", addresses=[match.source], names=names, services=services)


@trio.as_safe_channel
async def poll() -> AsyncGenerator[Sighting, None]:
    """Ask everybody on the node's segments, then each for its name; yield each that answered."""
    matches: dict[tuple[str, str], Match] = {}
    async with ask(_EVERYBODY, [probe()]) as answers:
        async for answer in answers:
            try:
                match = read_match(answer.data, answer.source)
            except PeerError:
                continue
            matches.setdefault((match.source, match.endpoint), match)
    send, found = trio.open_memory_channel[Sighting](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_names_of_all, list(matches.values()), send)
        async for sighting in found:
            yield sighting


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
    await send.send(_sighting(match, names))


async def _get(match: Match) -> bytes:
    if match.port is None:
        raise PeerError(f"{match.source} does not say where it says more")
    body = _envelope(to=match.endpoint, action=_GET, body="")
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


def _envelope(*, to: str, action: str, body: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="{_SOAP}" xmlns:a="{_ADDRESSING}"'
        f' xmlns:d="{_DISCOVERY}"><s:Header><a:To>{to}</a:To><a:Action>{action}</a:Action>'
        f"<a:MessageID>urn:uuid:{uuid.uuid4()}</a:MessageID>"
        f"<a:ReplyTo><a:Address>{_ANONYMOUS}</a:Address></a:ReplyTo></s:Header>"
        f"<s:Body>{body}</s:Body></s:Envelope>"
    ).encode()
