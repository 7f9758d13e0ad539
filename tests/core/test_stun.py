"""What a gateway answers to STUN requests, and what it does not."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

import aioice.stun
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.stun import Reply, StunResponder, StunStatistics
from p2pdist.errors import UsageError
from p2pdist.wire.stun import COOKIE, BindingAnswer, BindingError, BindingRequest, Endpoint, decode, encode

ONE, OTHER = "198.51.100.1", "198.51.100.2"
DEVICE = Endpoint("203.0.113.9", 40_000)
DEVICE6 = Endpoint("2001:db8:1234:5678:11:2233:4455:6677", 65_535)
TRANSACTION = bytes(range(12))
NOW = 10.0


def responder(hosts: Sequence[str] = (ONE, OTHER), **arguments: object) -> StunResponder:
    return StunResponder(hosts, (3478, 3479), key=bytes(16), now=NOW, **arguments)  # type: ignore[arg-type]


def request(*, size: int = limits.STUN_REQUEST_BYTES, **flags: bool) -> bytes:
    return encode(BindingRequest(transaction=TRANSACTION, **flags), bytes_min=size)


def asked(some: StunResponder, data: bytes, *, source: Endpoint = DEVICE, at: int = 0) -> Reply | None:
    return some.handle_datagram(data, source.host, source.port, some.endpoints[at], NOW)


def counted(some: StunResponder) -> dict[str, int]:
    """Return what was counted, without the zeros."""
    every = {name: getattr(some.statistics(), name) for name in StunStatistics.__slots__}
    return {name: count for name, count in every.items() if count}


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("change_address", [False, True])
@pytest.mark.parametrize("change_port", [False, True])
def test_an_answer_comes_from_where_it_was_asked_to_come_from(
    at: int, change_address: bool, change_port: bool
) -> None:
    some = responder()
    local = some.endpoints[at]

    reply = asked(some, request(change_address=change_address, change_port=change_port), at=at)

    other_host, other_port = {ONE: OTHER, OTHER: ONE}[local.host], {3478: 3479, 3479: 3478}[local.port]
    origin = Endpoint(other_host if change_address else local.host, other_port if change_port else local.port)
    answer = BindingAnswer(
        transaction=TRANSACTION, mapped=DEVICE, origin=origin, other=Endpoint(other_host, other_port)
    )
    assert reply == Reply(data=encode(answer), origin=origin)
    assert counted(some) == {"answered": 1}


def test_a_gateway_with_one_address_names_its_other_port() -> None:
    reply = asked(responder([ONE]), request())

    assert reply is not None
    answer = decode(reply.data)
    assert isinstance(answer, BindingAnswer)
    assert answer.other == Endpoint(ONE, 3479)


def test_a_gateway_with_one_address_says_that_it_cannot_change_it() -> None:
    some = responder([ONE])

    reply = asked(some, request(change_address=True, change_port=True))

    assert reply is not None
    assert reply.origin == some.endpoints[0]
    assert decode(reply.data) == BindingError(transaction=TRANSACTION, code=420, unknown=(3,))
    assert counted(some) == {"refused": 1}


@pytest.mark.parametrize(
    ("size", "source", "said"),
    [
        (20, DEVICE, "nothing"),
        (28, DEVICE, "nothing"),
        (32, DEVICE, "mapped"),
        (52, DEVICE, "mapped"),
        (56, DEVICE, "all"),
        (40, DEVICE6, "nothing"),
        (44, DEVICE6, "mapped"),
        (88, DEVICE6, "mapped"),
        (92, DEVICE6, "all"),
    ],
)
def test_an_answer_says_as_much_as_fits_into_its_request(size: int, source: Endpoint, said: str) -> None:
    some = responder() if source == DEVICE else responder(["2001:db8::1", "2001:db8::2"])

    reply = asked(some, request(size=size), source=source)

    if reply is None:
        assert said == "nothing"
        assert counted(some) == {"unpadded": 1}
        return
    answer = decode(reply.data)
    assert isinstance(answer, BindingAnswer)
    assert answer.mapped == source
    assert said == ("mapped" if answer.other is None else "all")


def test_the_ice_librarys_own_query_gets_no_answer_but_a_padded_one_of_its_making_does() -> None:
    bare = aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST)
    padded = aioice.stun.Message(
        aioice.stun.Method.BINDING,
        aioice.stun.Class.REQUEST,
        attributes={"SOFTWARE": " " * (limits.STUN_REQUEST_BYTES - 24)},
    )
    some = responder()

    assert len(bytes(bare)) == 20
    assert asked(some, bytes(bare)) is None
    assert len(bytes(padded)) == limits.STUN_REQUEST_BYTES
    reply = asked(some, bytes(padded))
    assert reply is not None
    read = aioice.stun.parse_message(reply.data)
    assert read.transaction_id == padded.transaction_id
    assert read.attributes["XOR-MAPPED-ADDRESS"] == DEVICE.address


attributes = st.lists(
    st.tuples(
        st.sampled_from([0x0003, 0x0006, 0x0008, 0x0026, 0x0027, 0x8022]) | st.integers(0, 0xFFFF),
        st.binary(max_size=40) | st.sampled_from([bytes([0, 0, 0, flags]) for flags in (0, 2, 4, 6)]),
    ),
    max_size=30,
)


def raw(attributes: Sequence[tuple[int, bytes]]) -> bytes:
    body = b"".join(struct.pack("!HH", t, len(v)) + v + bytes(-len(v) % 4) for t, v in attributes)
    return struct.pack("!HHI12s", 1, len(body), COOKIE, TRANSACTION) + body


@given(
    data=st.binary(max_size=100) | attributes.map(raw),
    host=st.ip_addresses(),
    port=st.integers(0, 65535),
    hosts=st.sampled_from([(ONE,), (ONE, OTHER), ("2001:db8::1",), ("2001:db8::1", "2001:db8::2")]),
    at=st.integers(0, 3),
)
def test_no_answer_is_ever_larger_than_its_request(
    data: bytes,
    host: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    hosts: Sequence[str],
    at: int,
) -> None:
    some = responder(hosts)
    local = at % len(some.endpoints)

    reply = asked(some, data, source=Endpoint(str(host), port), at=local)

    assert reply is None or len(reply.data) <= len(data)
    assert sum(counted(some).values()) == 1


def test_answers_and_errors_of_others_are_not_answered_so_that_two_gateways_cannot_talk_for_ever() -> None:
    some = responder()
    for message in (
        BindingAnswer(transaction=TRANSACTION, mapped=DEVICE),
        BindingError(transaction=TRANSACTION, code=420),
    ):
        assert asked(some, encode(message, bytes_min=200)) is None
    assert counted(some) == {"malformed": 2}


# Floods ------------------------------------------------------------------------------------------------


def invented(number: int) -> Endpoint:
    """The *number*-th of many sources."""
    return Endpoint(str(ipaddress.IPv4Address("11.0.0.0") + number), 1)


def test_a_flood_from_one_source_is_cut_and_another_source_is_answered() -> None:
    some = responder()
    for _ in range(5_000):
        asked(some, request())

    assert counted(some) == {
        "answered": limits.STUN_SOURCE_BURST,
        "source_limited": 5_000 - limits.STUN_SOURCE_BURST,
    }
    assert asked(some, request(), source=Endpoint("192.0.2.1", 1)) is not None


def test_a_flood_from_one_ipv6_network_is_one_source() -> None:
    some = responder(["2001:db8::1"])
    for number in range(limits.STUN_SOURCE_BURST + 10):
        asked(some, request(), source=Endpoint(f"2001:db8:1::{number + 1:x}", 1))

    assert counted(some)["source_limited"] == 10


@pytest.mark.slow
def test_a_flood_with_invented_sources_is_cut_and_those_who_are_known_are_answered() -> None:
    some = responder(known=lambda host: host == DEVICE.host)
    for number in range(20_000):
        asked(some, request(), source=invented(number))

    assert some.statistics().answered == limits.STUN_STRANGERS_PER_S
    assert asked(some, request(), source=Endpoint("192.0.2.77", 1)) is None
    assert asked(some, request()) is not None


def test_what_is_malformed_costs_strangers_no_answers() -> None:
    some = responder()
    for number in range(limits.STUN_STRANGERS_PER_S + 1):
        asked(some, b"junk", source=invented(number))

    assert asked(some, request()) is not None


@pytest.mark.parametrize("hosts", [[], [ONE, ONE], [ONE, OTHER, "198.51.100.3"], [ONE, "::2"]])
def test_a_responder_has_one_or_two_addresses_of_one_family(hosts: list[str]) -> None:
    with pytest.raises(UsageError):
        responder(hosts)


def test_a_responder_has_two_ports() -> None:
    with pytest.raises(UsageError):
        StunResponder([ONE], (3478, 3478), key=bytes(16), now=NOW)
