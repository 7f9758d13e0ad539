"""STUN Binding messages and their bytes."""

from __future__ import annotations

import struct

import aioice.stun
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError
from p2pdist.wire.stun import (
    COOKIE,
    BindingAnswer,
    BindingError,
    BindingRequest,
    Endpoint,
    StunMessage,
    decode,
    encode,
    endpoint_of,
)

TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")  # of RFC 5769

transactions = st.binary(min_size=12, max_size=12)
endpoints = st.builds(lambda ip, port: Endpoint(str(ip), port), st.ip_addresses(), st.integers(0, 65535))
types = st.lists(st.integers(0, 0xFFFF), max_size=20).map(tuple)
requests = st.builds(
    BindingRequest, transaction=transactions, change_address=st.booleans(), change_port=st.booleans()
)
answers = st.builds(
    BindingAnswer,
    transaction=transactions,
    mapped=endpoints,
    origin=st.none() | endpoints,
    other=st.none() | endpoints,
)
errors = st.builds(BindingError, transaction=transactions, code=st.integers(300, 699), unknown=types)
messages = requests | answers | errors


def raw(kind: int, *attributes: tuple[int, bytes], transaction: bytes = TRANSACTION) -> bytes:
    """Any STUN message, right or wrong, made without the code under test."""
    body = b"".join(
        struct.pack("!HH", type_, len(value)) + value + bytes(-len(value) % 4) for type_, value in attributes
    )
    return struct.pack("!HHI12s", kind, len(body), COOKIE, transaction) + body


@given(message=messages, bytes_min=st.integers(0, 700))
def test_what_is_encoded_decodes_to_itself_with_or_without_filler(
    message: StunMessage, bytes_min: int
) -> None:
    data = encode(message, bytes_min=bytes_min)

    assert decode(data) == message
    assert len(data) >= bytes_min
    assert len(data) % 4 == 0


@pytest.mark.parametrize(
    ("value", "mapped"),
    [
        ("0001a147e112a643", Endpoint("192.0.2.1", 32853)),
        ("0002a1470113a9faa5d3f179bc25f4b5bed2b9d9", Endpoint("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_the_address_of_the_specifications_example_is_read_and_written(value: str, mapped: Endpoint) -> None:
    data = raw(0x0101, (0x0020, bytes.fromhex(value)))

    assert decode(data) == BindingAnswer(transaction=TRANSACTION, mapped=mapped)
    assert encode(BindingAnswer(transaction=TRANSACTION, mapped=mapped)) == data


@given(answer=answers)
def test_another_implementation_reads_our_answers(answer: BindingAnswer) -> None:
    message = aioice.stun.parse_message(encode(answer))

    assert message.transaction_id == answer.transaction
    assert endpoint_of(*message.attributes["XOR-MAPPED-ADDRESS"]) == endpoint_of(*answer.mapped.address)
    assert ("OTHER-ADDRESS" in message.attributes) == (answer.other is not None)


@given(transaction=transactions, flags=st.sampled_from([0, 2, 4, 6]), software=st.text(max_size=60))
def test_another_implementations_requests_are_read(transaction: bytes, flags: int, software: str) -> None:
    message = aioice.stun.Message(
        aioice.stun.Method.BINDING,
        aioice.stun.Class.REQUEST,
        transaction,
        {"CHANGE-REQUEST": flags, "SOFTWARE": software},
    )

    assert decode(bytes(message)) == BindingRequest(
        transaction=transaction, change_address=bool(flags & 4), change_port=bool(flags & 2)
    )


def test_a_request_of_ours_is_as_long_as_the_longest_answer() -> None:
    far = Endpoint("2001:db8:1234:5678:11:2233:4455:6677", 65535)
    answer = encode(BindingAnswer(transaction=TRANSACTION, mapped=far, origin=far, other=far))
    request = BindingRequest(transaction=TRANSACTION)

    assert len(answer) == limits.STUN_REQUEST_BYTES
    for asked in (
        request,
        BindingRequest(transaction=TRANSACTION, change_port=True),
        BindingRequest(transaction=TRANSACTION, change_port=True, change_address=True),
    ):
        assert len(encode(asked, bytes_min=limits.STUN_REQUEST_BYTES)) == limits.STUN_REQUEST_BYTES


def test_padding_in_a_request_is_understood_and_ignored() -> None:
    assert decode(raw(0x0001, (0x0026, bytes(500)))) == BindingRequest(transaction=TRANSACTION)


def test_what_may_be_ignored_is_and_what_must_be_understood_is_named() -> None:
    data = raw(0x0001, (0x8022, b"any"), (0x0024, bytes(4)), (0x0025, b""), (0xFFFF, b"x"))

    assert decode(data) == BindingRequest(transaction=TRANSACTION, unknown=(0x0024, 0x0025))


def test_the_first_of_two_attributes_of_one_type_counts() -> None:
    data = raw(0x0001, (0x0003, bytes([0, 0, 0, 2])), (0x0003, bytes([0, 0, 0, 4])))

    assert decode(data) == BindingRequest(transaction=TRANSACTION, change_port=True)


PLAIN = raw(0x0001)
MAPPED = (0x0020, bytes.fromhex("0001a147e112a643"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:19],
        PLAIN + bytes(4),  # more than the length says
        raw(0x0001, (0x8022, b"abcd"))[:-4],  # less
        PLAIN[:2] + b"\0\2" + PLAIN[4:] + b"ab",  # not a multiple of four
        PLAIN[:4] + bytes(4) + PLAIN[8:],  # no cookie: RFC 3489
        b"\x80" + PLAIN[1:],  # the first two bits, of RTP or a TURN channel
        raw(0x0011),  # an indication
        raw(0x0003),  # Allocate, of TURN
        struct.pack("!HHI12sHH", 1, 4, COOKIE, TRANSACTION, 0x8022, 1),  # an attribute behind the end
        struct.pack("!HHI12sHH", 1, 4, COOKIE, TRANSACTION, 0x8022, 0xFFFF),
        raw(0x0001, (0x0003, b"abc")),
        raw(0x0001, (0x8022, bytes(limits.STUN_BYTES_MAX))),
        raw(0x0101),  # an answer without an address
        raw(0x0101, (0x0020, b"")),
        raw(0x0101, (0x0020, b"\0")),
        raw(0x0101, (0x0020, bytes.fromhex("0003a147e112a643"))),  # no such family
        raw(0x0101, (0x0020, bytes.fromhex("0002a147e112a643"))),  # IPv6 in four bytes
        raw(0x0101, MAPPED, (0x802C, bytes(7))),
        raw(0x0101, MAPPED, (0x0009, bytes(4))),  # must be understood, and makes no sense in an answer
        raw(0x0111),
        raw(0x0111, (0x0009, bytes([0, 0, 4]))),
        raw(0x0111, (0x0009, bytes([0, 0, 7, 0]))),
        raw(0x0111, (0x0009, bytes([0, 0, 4, 100]))),
        raw(0x0111, (0x0009, bytes([0, 0, 4, 20])), (0x000A, b"abc")),
    ],
)
def test_what_is_malformed_is_the_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerError):
        decode(data)


attributes = st.tuples(
    st.sampled_from([0x0003, 0x0009, 0x000A, 0x0020, 0x0026, 0x802B, 0x802C]) | st.integers(0, 0xFFFF),
    st.binary(max_size=30),
)
kinds = st.sampled_from([0x0001, 0x0011, 0x0101, 0x0111]) | st.integers(0, 0xFFFF)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message in which one byte is another."""
    data = bytearray(encode(draw(messages)))
    data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@given(
    st.binary(max_size=200)
    | damaged()
    | st.builds(lambda kind, each: raw(kind, *each), kinds, st.lists(attributes, max_size=6))
)
@example(bytes(limits.STUN_BYTES_MAX + 1))
def test_whatever_arrives_is_a_message_or_a_peers_fault(data: bytes) -> None:
    try:
        message = decode(data)
    except PeerError:
        return
    encode(message)


@pytest.mark.parametrize("host", ["", "gateway.example", "192.0.2", "192.0.2.1:80", "fe80::1%eth0"])
def test_an_endpoint_has_an_address(host: str) -> None:
    with pytest.raises(UsageError):
        Endpoint(host, 1)


def test_an_endpoint_is_the_same_however_its_address_was_written() -> None:
    assert endpoint_of("2001:DB8:0:0::1", 7) == endpoint_of("2001:db8::1", 7)
    assert endpoint_of("fe80::1%eth0", 7) == Endpoint("fe80::1", 7)


def test_an_endpoint_is_written_as_people_do() -> None:
    assert str(Endpoint("192.0.2.1", 80)) == "192.0.2.1:80"
    assert str(Endpoint("2001:db8::1", 80)) == "[2001:db8::1]:80"
