"""The messages of WS-Discovery (2005/04), as far as it takes to find devices by name."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from p2pdist import limits
from p2pdist.duties.discovery.xmltexts import read_texts
from p2pdist.errors import PeerError
from p2pdist.wire.discovery import canonical_address, printable

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


def resolve(endpoint: str) -> bytes:
    """Return the question where a device can be asked for more."""
    return _envelope(
        to="urn:schemas-xmlsoap-org:ws:2005:04:discovery",
        action=f"{_DISCOVERY}/Resolve",
        body=f"<d:Resolve><a:EndpointReference><a:Address>{endpoint}</a:Address></a:EndpointReference>"
        "</d:Resolve>",
    )


def get(match: Match) -> bytes:
    """Return the question what a device is."""
    return _envelope(to=match.endpoint, action=_GET, body="")


def read_match(data: bytes, source: str) -> Match:
    """Read an answer to a probe, or to the question where a device can be asked for more.

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


def _envelope(*, to: str, action: str, body: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="{_SOAP}" xmlns:a="{_ADDRESSING}"'
        f' xmlns:d="{_DISCOVERY}"><s:Header><a:To>{to}</a:To><a:Action>{action}</a:Action>'
        f"<a:MessageID>urn:uuid:{uuid.uuid4()}</a:MessageID>"
        f"<a:ReplyTo><a:Address>{_ANONYMOUS}</a:Address></a:ReplyTo></s:Header>"
        f"<s:Body>{body}</s:Body></s:Envelope>"
    ).encode()
