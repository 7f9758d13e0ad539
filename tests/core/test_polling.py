"""Which addresses a poll asks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.polling import addresses_to_ask, excludes, on_segment
from p2pdist.errors import UsageError

NETWORKS = st.builds(
    lambda address, bits: str(IPv4Network((int(address), bits), strict=False)),
    st.ip_addresses(v=4),
    st.integers(22, 32),
)


def asked(*ranges: str, excluded: tuple[str, ...] = ()) -> list[str]:
    return [str(address) for address in addresses_to_ask(ranges, excluded)]


def test_a_network_is_asked_without_its_own_address_and_its_broadcast() -> None:
    assert asked("10.1.0.0/30") == ["10.1.0.1", "10.1.0.2"]
    assert asked("10.1.0.9/30") == ["10.1.0.9", "10.1.0.10"]
    assert asked("10.1.0.7") == ["10.1.0.7"]


def test_networks_are_asked_in_turn_not_one_after_the_other() -> None:
    assert asked("10.1.0.0/30", "10.2.0.0/30") == ["10.1.0.1", "10.2.0.1", "10.1.0.2", "10.2.0.2"]


@pytest.mark.parametrize("text", ["", "lab", "10.0.0.0/33", "10.0.0.256", "fd00::/64", "::1", "/8", "1.2.3"])
def test_what_is_no_range_of_ipv4_is_refused_with_the_way_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"10\.1\.0\.0/24"):
        asked(text)
    with pytest.raises(UsageError):
        asked("10.0.0.1", excluded=(text,))


def test_too_many_addresses_are_refused_before_they_are_counted_one_by_one() -> None:
    assert len(asked("10.0.0.0/16")) <= limits.POLL_ADDRESSES_MAX
    for ranges in (("10.0.0.0/15",), ("0.0.0.0/0",), ("10.0.0.0/16", "11.0.0.1")):
        with pytest.raises(UsageError, match="in parts"):
            asked(*ranges)


@given(st.lists(NETWORKS, max_size=4), st.lists(NETWORKS, max_size=4))
def test_every_address_is_asked_once_and_none_that_is_excluded(
    ranges: list[str], excluded: list[str]
) -> None:
    found = addresses_to_ask(ranges, excluded)
    assert len(found) == len(set(found))
    for address in found:
        assert any(address in IPv4Network(each) for each in ranges)
        assert not excludes(excluded, address)


def test_ipv6_is_in_no_range() -> None:
    assert not excludes(["0.0.0.0/0"], ip_address("fe80::1"))


def test_a_segment_has_its_own_addresses() -> None:
    segments = [IPv4Network("10.1.0.0/24")]
    assert on_segment(IPv4Address("10.1.0.200"), segments)
    assert not on_segment(IPv4Address("10.1.1.1"), segments)
