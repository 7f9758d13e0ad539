"""Who offers what on the node's own segments by Zeroconf: DNS-SD (RFC 6763) over multicast DNS (RFC 6762).

Questions come from a port of their own, so answers come to it alone (RFC 6762, section 6.7): nothing needs
port 5353, which a responder of the machine may have. What an answer says of other addresses than the one it
comes from is not believed.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import dns.exception
import dns.message
import dns.name
import trio
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.IN.SRV import SRV

from p2pdist import limits
from p2pdist.duties.discovery.segments import Everybody, ask
from p2pdist.errors import PeerError
from p2pdist.wire.discovery import Sighting, canonical_address, printable

_EVERYBODY = Everybody(ipv4="224.0.0.251", ipv6="ff02::fb", port=5353, hops=255)
_ALL_TYPES = "_services._dns-sd._udp.local"
_WORKSTATIONS = "_workstation._tcp.local"
_TYPE = re.compile(r"(_[a-z0-9-]{1,32}\._(tcp|udp))\.local\Z")
_WITH_MAC = re.compile(r"(.+) \[([0-9a-f]{2}(?::[0-9a-f]{2}){5})\]\Z")
_HOSTS_MAX = 64  # that one responder speaks for: a proxy for those asleep
_NAME_CHARS_MAX = 255


@dataclass(slots=True)
class Said:
    """What one responder has said."""

    types: set[str] = field(default_factory=set)
    """Kinds of service that there are: ``_ipp._tcp``."""
    services: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The kinds that a host offers, by its name."""
    addresses: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    macs: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def question(name: str) -> bytes:
    """Return the question for all pointers of *name*."""
    return dns.message.make_query(name, "PTR", flags=0).to_wire()


def read_answer(data: bytes, said: Said) -> None:
    """Add what an answer says to what its sender has said before.

    Raises:
        PeerError: it is no DNS message.
    """
    try:
        message = dns.message.from_wire(data, ignore_trailing=True)
        records = [
            (rrset.name, record)
            for section in (message.answer, message.additional)
            for rrset in section
            for record in rrset
        ]
    except (dns.exception.DNSException, ValueError) as error:
        raise PeerError(f"a multicast DNS answer cannot be read ({type(error).__name__})") from None
    for name, record in records:
        if isinstance(record, PTR):
            _pointer(said, _text(name), record.target)
        elif isinstance(record, SRV) and len(said.services) < _HOSTS_MAX:
            found = _TYPE.search(_text(name))
            if found and (host := _text(record.target)):
                said.services[host].add(found[1])
        elif isinstance(record, A | AAAA) and len(said.addresses) < _HOSTS_MAX and (host := _text(name)):
            said.addresses[host].add(canonical_address(record.address))


def _pointer(said: Said, name: str, target: dns.name.Name) -> None:
    if name == _ALL_TYPES:
        found = _TYPE.match(_text(target))
    else:
        found = _TYPE.match(name)
        if name == _WORKSTATIONS and target.labels and len(said.macs) < _HOSTS_MAX:
            with_mac = _WITH_MAC.match(_label(target.labels[0]))
            if with_mac:
                said.macs[f"{with_mac[1].lower()}.local"].add(with_mac[2])
    if found and len(said.types) < limits.SERVICE_TYPES_ASKED_MAX:
        said.types.add(found[1])


def _label(label: bytes) -> str:
    return printable(label.decode("utf-8", "replace").replace(".", " "))


def _text(name: dns.name.Name) -> str:
    return printable(".".join(_label(label) for label in name.labels if label).lower(), _NAME_CHARS_MAX)


def sightings_of(said: Said, source: str) -> list[Sighting]:
    """Return every host that the responder at *source* spoke of; with that address, if it is its own."""
    found = []
    for host in sorted({*said.services, *said.addresses, *said.macs}):
        claimed = said.addresses.get(host, set())
        own = not claimed or source in claimed
        found.append(
            Sighting(
                method="mdns",
                addresses=[source] if own else [],
                names=[host],
                macs=sorted(said.macs.get(host, ()))[: limits.SIGHTING_MACS_MAX],
                services=sorted(said.services.get(host, ()))[: limits.SIGHTING_SERVICES_MAX],
            )
        )
    if not found:
        types = sorted(said.types)[: limits.SIGHTING_SERVICES_MAX]
        found.append(Sighting(method="mdns", addresses=[source], services=types))
    return found


@trio.as_safe_channel
async def poll() -> AsyncGenerator[Sighting, None]:
    """Ask everybody on the node's segments for what they offer; yield each host that is spoken of."""
    said: dict[str, Said] = defaultdict(Said)
    await _gather([_ALL_TYPES, _WORKSTATIONS], said)
    types = sorted({kind for each in said.values() for kind in each.types} - {"_workstation._tcp"})
    if types:
        await _gather([f"{kind}.local" for kind in types[: limits.SERVICE_TYPES_ASKED_MAX]], said)
    for source, each in said.items():
        for sighting in sightings_of(each, source):
            yield sighting


async def _gather(names: list[str], said: dict[str, Said]) -> None:
    async with ask(_EVERYBODY, [question(name) for name in names]) as answers:
        async for answer in answers:
            try:
                read_answer(answer.data, said[answer.source])
            except PeerError:
                continue
