"""Which addresses a poll asks, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, collapse_addresses, ip_network

from p2pdist import limits
from p2pdist.errors import UsageError

_HINT = "write IPv4 networks or addresses: 10.1.0.0/24 or 10.1.0.7; IPv6 is not scanned"


def addresses_to_ask(ranges: Iterable[str], excluded: Iterable[str]) -> list[IPv4Address]:
    """Return every address of *ranges* once, without those of *excluded*, networks and broadcasts.

    They are ordered so that no network is asked as a whole before the next: of each its first, of each its
    second, and so on.

    Raises:
        UsageError: a range is none, or they are more than one poll may ask.
    """
    networks = list(collapse_addresses(map(_parsed, ranges)))
    without = list(collapse_addresses(map(_parsed, excluded)))
    if sum(network.num_addresses for network in networks) > limits.POLL_ADDRESSES_MAX:
        raise UsageError(
            f"the ranges have more than {limits.POLL_ADDRESSES_MAX} addresses",
            hint="poll them in parts, as several tasks",
        )
    return _in_turn([_hosts(network, without) for network in networks])


def excludes(excluded: Iterable[str], address: IPv4Address | IPv6Address) -> bool:
    """Whether *address* is in one of the ranges *excluded*. Raises UsageError as :func:`addresses_to_ask`."""
    return isinstance(address, IPv4Address) and _among(address, list(map(_parsed, excluded)))


def on_segment(address: IPv4Address, segments: Sequence[IPv4Network]) -> bool:
    """Whether *address* is on one of the segments on which this machine stands itself."""
    return _among(address, segments)


def _hosts(network: IPv4Network, without: Iterable[IPv4Network]) -> list[IPv4Address]:
    near = [each for each in without if each.overlaps(network)]
    return [host for host in network.hosts() if not _among(host, near)]


def _in_turn(lists: Sequence[Sequence[IPv4Address]]) -> list[IPv4Address]:
    longest = max(map(len, lists), default=0)
    return [each[place] for place in range(longest) for each in lists if place < len(each)]


def _among(address: IPv4Address, networks: Iterable[IPv4Network]) -> bool:
    return any(address in network for network in networks)


def _parsed(text: str) -> IPv4Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise UsageError(f"{text[:60]!r} is not a range of addresses", hint=_HINT) from None
    if not isinstance(network, IPv4Network):
        raise UsageError(f"{text[:60]} is a range of IPv6", hint=_HINT)
    return network
