"""What a host in a configuration stands for."""

from __future__ import annotations

import pytest

from p2pdist.core.listening import EVERYWHERE, listening_host, listening_hosts


def test_everywhere_is_every_address_of_both_families() -> None:
    assert listening_hosts(EVERYWHERE) == ("0.0.0.0", "::")
    assert listening_hosts("192.0.2.1") == ("192.0.2.1",)


@pytest.mark.parametrize("dialled", ["127.0.0.1", "127.7.7.7", "::1", "0.0.0.0", "::"])
def test_loopback_and_one_familys_addresses_are_listened_on_as_they_are(dialled: str) -> None:
    assert listening_host(dialled) == dialled


def test_localhost_is_the_loopback_address_of_ipv4() -> None:
    assert listening_host("localhost", "localhost") == "127.0.0.1"


@pytest.mark.parametrize(
    "dialled",
    [("updates.example",), ("192.0.2.1",), ("2001:db8::1",), ("127.0.0.1", "::1"), (EVERYWHERE,)],
)
def test_for_anything_else_every_address_is_listened_on(dialled: tuple[str, ...]) -> None:
    assert listening_host(*dialled) == EVERYWHERE
