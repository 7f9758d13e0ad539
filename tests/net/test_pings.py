"""ICMP echo."""

from __future__ import annotations

import os
from contextlib import aclosing
from ipaddress import IPv4Address, IPv6Address

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import Unavailable
from p2pdist.net.pings import Address, Version, checksum, echo_request, is_answer, open_pinger

TOKEN = bytes(range(16))
HEADER = b"\x45" + bytes(19)


def test_a_request_has_the_checksum_of_the_rfc() -> None:
    request = echo_request(7, TOKEN, 4)
    assert request[:2] == b"\x08\x00"
    assert checksum(request) == 0
    assert checksum(b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7") == 0x220D  # the example of RFC 1071


def test_an_answer_is_known_by_its_token() -> None:
    answer = bytes(8) + TOKEN
    assert is_answer(answer, TOKEN, 4, raw=False)
    assert is_answer(HEADER + answer, TOKEN, 4, raw=True)
    assert is_answer(b"\x81" + bytes(7) + TOKEN, TOKEN, 6, raw=True)
    assert not is_answer(bytes(8) + TOKEN[::-1], TOKEN, 4, raw=False)
    assert not is_answer(echo_request(7, TOKEN, 4), TOKEN, 4, raw=False), "one's own request"


@given(st.binary(max_size=80), st.sampled_from([4, 6]), st.booleans())
def test_garbage_is_no_answer(packet: bytes, version: Version, raw: bool) -> None:
    assert not is_answer(packet, TOKEN + b"never", version, raw=raw)


async def test_those_who_are_there_answer() -> None:
    asked: set[Address] = {IPv4Address(f"127.0.0.{number}") for number in range(1, 200)}
    heard: set[Address] = set()
    try:
        async with open_pinger() as pinger, trio.open_nursery() as nursery:

            async def hear() -> None:
                async for address in pinger.answers():
                    heard.add(address)
                    if heard == asked:
                        nursery.cancel_scope.cancel()

            nursery.start_soon(hear)
            for address in asked:
                assert await pinger.ask(address)
            nursery.cancel_scope.deadline = trio.current_time() + 10
    except Unavailable:
        assert os.geteuid() != 0
        pytest.skip("this user may send no ICMP")
    assert heard == asked


async def test_over_ipv6_too() -> None:
    try:
        async with open_pinger(6) as pinger:
            if not await pinger.ask(IPv6Address("::1")):
                pytest.skip("this machine has no IPv6")
            with trio.fail_after(10):
                async with aclosing(pinger.answers()) as answers:
                    assert await anext(answers) == IPv6Address("::1")
    except Unavailable:
        pytest.skip("this user may send no ICMP")


async def test_where_there_is_no_way_nobody_is_asked() -> None:
    try:
        async with open_pinger() as pinger:
            assert not await pinger.ask(IPv4Address("255.255.255.255"))
    except Unavailable:
        pytest.skip("this user may send no ICMP")
