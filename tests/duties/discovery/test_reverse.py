"""The names of addresses, from a resolver on loopback."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

from p2pdist.duties.discovery import reverse
from p2pdist.wire.discovery import Sighting

pytestmark = pytest.mark.slow  # a resolver that does not answer is waited for

NAMES = {
    "7.0.1.10.in-addr.arpa.": ["PC7.corp.example."],
    "8.0.1.10.in-addr.arpa.": [r"a\027[2J.corp.example.", "pc8.corp.example."],
    "9.0.1.10.in-addr.arpa.": [r"\000\255.corp.example."],
}


async def resolver(opened: trio.socket.SocketType) -> None:
    """Knows NAMES; answers one address with garbage, one not at all, and denies the others."""
    while True:
        data, sender = await opened.recvfrom(4_096)
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text()
        if name.startswith("66."):
            continue
        answer = dns.message.make_response(query)
        if name in NAMES:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "PTR", *NAMES[name]))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        await opened.sendto(b"garbage" if name.startswith("67.") else answer.to_wire(), sender)


async def test_addresses_get_the_names_that_can_be_written_plainly() -> None:
    addresses = [*ip_network("10.1.0.0/28").hosts(), ip_address("10.1.0.66"), ip_address("10.1.0.67")]
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as opened:
        await opened.bind(("127.0.0.1", 0))
        port = opened.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resolver, opened)
            async with reverse.poll(addresses, per_s=500, servers=["127.0.0.1"], port=port) as found:
                seen = [sighting async for sighting in found]
            nursery.cancel_scope.cancel()
    assert sorted(seen, key=lambda sighting: sighting.addresses) == [
        Sighting(method="reverse", addresses=["10.1.0.7"], names=["pc7.corp.example"]),
        Sighting(method="reverse", addresses=["10.1.0.8"], names=["pc8.corp.example"]),
    ]


@pytest.mark.parametrize("stop_after", [0, 1])
async def test_a_poll_that_is_left_early_ends_at_once(stop_after: int) -> None:
    addresses = list(ip_network("10.1.0.0/24").hosts())
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as opened, trio.fail_after(5):
        await opened.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(resolver, opened)
            poll = reverse.poll(addresses, per_s=100, servers=["127.0.0.1"], port=opened.getsockname()[1])
            async with poll as found:
                for _ in range(stop_after):
                    await found.receive()
            nursery.cancel_scope.cancel()
