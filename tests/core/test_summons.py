"""What a node does of what its gateway says about observers and calls, whoever the gateway is."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.summons import Summons
from p2pdist.errors import PeerError
from p2pdist.ids import node_id_of
from p2pdist.wire.frames import Call, Candidate, Endpoint, Observe, Path, Role

GATEWAY = "198.51.100.1"
PEER, OTHER = (node_id_of(bytes([n]) * 32) for n in (1, 2))
HASH = "a" * 64


def observe(*hosts: str) -> Observe:
    return Observe(info_hash=HASH, observers=[Endpoint(host=h, port=7601) for h in hosts], token="0" * 32)


def call(*hosts: str) -> Call:
    endpoints = [Endpoint(host=host, port=7602) for host in hosts]
    return Call(info_hash=HASH, node=PEER, endpoints=endpoints, dials=True, attempt=1)


def candidate(path: Path = "punched", role: Role = "device", *, taken: bool = True) -> Candidate:
    return Candidate(node=PEER, role=role, host="203.0.113.1", port=1, taken=taken, reason="", path=path)


KNOWN = (candidate(),)
NOWHERE = [
    "127.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "224.0.0.251",
    "ff02::fb",
    "255.255.255.255",
    "localhost",
    "intranet.example.com",
    "203.0.113.1/announce?",
    "127.1",
    "",
]


def test_what_an_honest_gateway_says_is_followed() -> None:
    summons = Summons()
    assert summons.observers(observe("0.0.0.0", "2001:db8::1"), GATEWAY, 0.0) == [
        Endpoint(host=GATEWAY, port=7601),
        Endpoint(host="2001:db8::1", port=7601),
    ]
    endpoints = [Endpoint(host="203.0.113.1", port=7602)]
    for candidates in (KNOWN, (), (Candidate(**{**fields(KNOWN[0]), "node": OTHER}),)):
        assert summons.endpoints(call("203.0.113.1"), candidates, GATEWAY, 0.0) == endpoints


def fields(struct: Candidate) -> dict[str, object]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


@pytest.mark.parametrize("host", NOWHERE)
def test_no_datagram_goes_where_no_other_node_can_be(host: str) -> None:
    with pytest.raises(PeerError):
        Summons().observers(observe(GATEWAY, host), GATEWAY, 0.0)
    with pytest.raises(PeerError):
        Summons().endpoints(call(host), KNOWN, GATEWAY, 0.0)


def test_nobody_is_called_at_the_address_that_means_this_machine() -> None:
    for host in ("0.0.0.0", "::"):
        with pytest.raises(PeerError):
            Summons().endpoints(call(host), KNOWN, GATEWAY, 0.0)


def test_a_gateway_on_this_machine_may_name_others_on_it() -> None:
    assert Summons().observers(observe("0.0.0.0"), "127.0.0.2", 0.0)
    assert Summons().endpoints(call("127.0.0.3"), KNOWN, "127.0.0.2", 0.0)


@pytest.mark.parametrize(
    "known", [candidate("direct"), candidate("relayed"), candidate(role="point"), candidate(taken=False)]
)
def test_who_is_reached_otherwise_or_refused_is_not_called(known: Candidate) -> None:
    with pytest.raises(PeerError):
        Summons().endpoints(call("203.0.113.1"), [known], GATEWAY, 0.0)


def test_a_node_is_called_at_one_address_of_each_family() -> None:
    hosts = [f"203.0.113.{number}" for number in range(limits.CALL_ENDPOINTS_MAX + 1)]
    with pytest.raises(PeerError):
        Summons().endpoints(call(*hosts), KNOWN, GATEWAY, 0.0)


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=100, max_size=200))
def test_calls_and_shows_are_as_rare_as_they_need_to_be(pauses: Sequence[float]) -> None:
    summons, now = Summons(), 1_000.0
    shown = called = 0
    for pause in pauses:
        now += pause
        with contextlib.suppress(PeerError):
            shown += bool(summons.observers(observe(GATEWAY), GATEWAY, now))
        with contextlib.suppress(PeerError):
            called += bool(summons.endpoints(call("203.0.113.1"), KNOWN, GATEWAY, now))
    assert shown <= limits.SHOWN_BURST + (now - 1_000) * limits.SHOWN_PER_S + 1
    assert called <= limits.CALLED_BURST + (now - 1_000) * limits.CALLED_PER_S + 1


hosts = st.one_of(
    st.text(min_size=1, max_size=60),
    st.ip_addresses().map(str),
    st.ip_addresses(network="127.0.0.0/8").map(str),
    st.ip_addresses(network="127.0.0.0/8").map(lambda ip: f"::ffff:{ip}"),
    st.ip_addresses(network="224.0.0.0/4").map(str),
    st.ip_addresses(network="ff00::/8").map(str),
    st.sampled_from(NOWHERE),
)


@settings(max_examples=60)
@given(st.lists(hosts, max_size=limits.ENDPOINTS_MAX))
def test_whatever_is_named_only_addresses_of_single_other_machines_are_left(named: Sequence[str]) -> None:
    found: list[Endpoint] = []
    for follow in (
        lambda: Summons().observers(observe(*named), GATEWAY, 0.0),
        lambda: Summons().endpoints(call(*named), KNOWN, GATEWAY, 0.0),
    ):
        try:
            found += follow()
        except PeerError:
            continue
    for endpoint in found:
        ip = ipaddress.ip_address(endpoint.host)
        ip = getattr(ip, "ipv4_mapped", None) or ip
        assert not (ip.is_loopback or ip.is_multicast or ip.is_unspecified)
