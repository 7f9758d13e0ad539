"""Descriptions: what comes from the other side is valid or refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import PeerError
from p2pdist.net.rtc.description import Candidate, Description, encode_description, parse_description

GOOD: dict[str, Any] = {
    "role": "controlled",
    "username": "abcd",
    "password": "p" * 22,
    "fingerprint": bytes(32),
    "candidates": [{"kind": "host", "host": "192.0.2.1", "port": 7}],
}


def parse(**changed: Any) -> Description:
    return parse_description(msgpack.packb(GOOD | changed), expected="controlled")


def test_what_is_encoded_is_parsed_again() -> None:
    description = Description(
        role="controlled",
        username="abcd",
        password="p" * 22,
        fingerprint=bytes(range(32)),
        candidates=(
            Candidate(kind="host", host="192.0.2.1", port=7),
            Candidate(kind="srflx", host="2001:db8::1", port=65535),
        ),
    )
    assert parse_description(encode_description(description), expected="controlled") == description


@given(st.binary(max_size=200))
def test_garbage_is_the_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerError):
        parse_description(data, expected="controlled")


@pytest.mark.parametrize(
    "changed",
    [
        {"role": "controlling"},
        {"role": "both"},
        {"username": "abc"},
        {"username": "ab:d"},
        {"username": "abcd\n"},
        {"password": "p" * 21},
        {"password": "p" * 65},
        {"fingerprint": bytes(31)},
        {"fingerprint": "0" * 32},
        {"candidates": [{"kind": "host", "host": "192.0.2.1", "port": 7}] * 25},
        {"candidates": []},
        {"candidates": [{"kind": "relay", "host": "192.0.2.1", "port": 7}]},
        {"candidates": [{"kind": "host", "host": "192.0.2.1", "port": 0}]},
        {"candidates": [{"kind": "host", "host": "192.0.2.1", "port": 65536}]},
        {"candidates": [{"kind": "host", "host": "gateway.example", "port": 7}]},
        {"candidates": [{"kind": "host", "host": "x.local", "port": 7}]},
        {"candidates": [{"kind": "host", "host": "224.0.0.251", "port": 7}]},
        {"candidates": [{"kind": "host", "host": "0.0.0.0", "port": 7}]},
        {"candidates": [{"kind": "host", "host": "ff02::1", "port": 7}]},
        {"candidates": [{"kind": "host", "host": "fe80::1%eth0", "port": 7}]},
        {"candidates": [{"kind": "host", "host": "2001:DB8::1", "port": 7}]},
    ],
)
def test_a_description_with_one_wrong_thing_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(PeerError):
        parse(**changed)


def test_a_newer_node_may_say_more() -> None:
    assert parse(mood="good").username == "abcd"
