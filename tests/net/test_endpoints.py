"""Addresses as people write them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pdist.errors import UsageError
from p2pdist.net.endpoints import format_endpoint, parse_endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:7070", ("127.0.0.1", 7070)),
        ("admin.example.org:443", ("admin.example.org", 443)),
        ("host_1:1", ("host_1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0]:7070", ("fe80::1%eth0", 7070)),
    ],
)
def test_a_host_and_a_port_are_told_apart(text: str, endpoint: tuple[str, int]) -> None:
    assert parse_endpoint(text) == endpoint
    assert format_endpoint(*endpoint) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":7070",
        "host:0",
        "host:65536",
        "host:٣",
        "host:-1",
        "host: 7070",
        "::1:7070",
        "[::1]7070",
        "[::1]",
        "[host]:7070",
        "[]:7070",
        "http://host:7070",
        "host:7070/",
        "user@host:7070",
        "a" * 300 + ":7070",
        "ho st:7070",
        "-host:7070",
    ],
)
def test_what_is_no_address_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError, match="host:port"):
        parse_endpoint(text)


@given(st.text(max_size=40))
@example("[::1]:0x10")
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        host, port = parse_endpoint(text)
    except UsageError:
        return
    assert format_endpoint(host, port) == text or port == int(text.rpartition(":")[2])
