"""What is known of one discovered device, out of all that was seen of it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from p2pdist import limits
from p2pdist.core.identities import KINDS, Evidence, Kind, identities_of
from p2pdist.wire import codec
from p2pdist.wire.discovery import Sighting

_KEY_BYTES = 16
_ID_CHARS = 12
_NAMED_FIRST = ("managed", "directory", "reverse", "mdns", "netbios")
"""Whose names are shown first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenAt:
    """An address of a device, with its time. Current is the one that was seen last in its network."""

    address: str
    network: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDevice:
    """One device. Lists begin with what was seen last.

    Attributes:
        node: The enrolled node that it is; empty while it is not managed.
        known_by: The strongest kind of identity that it has: how sure it is who this is.
    """

    id: str
    name: str
    names: tuple[str, ...]
    node: str
    guid: str
    macs: tuple[str, ...]
    platform: str
    unit: str
    services: tuple[str, ...]
    methods: tuple[str, ...]
    networks: tuple[str, ...]
    addresses: tuple[SeenAt, ...]
    known_by: Kind
    first: int
    last: int


def key_of(sighting: Sighting, network: str) -> str:
    """Return the key of the evidence that a sighting is: the same for the same thing seen again.

    What a device offers may change without making it another one.
    """
    parts = [
        network,
        sighting.method,
        *("|".join(sorted(each)) for each in (sighting.addresses, sighting.macs, sighting.names)),
        sighting.guid,
        sighting.node,
    ]
    said = codec.encode(parts)
    return hashlib.blake2b(said, digest_size=_KEY_BYTES).hexdigest()


def evidence_of(sightings: Iterable[Sighting], network: str, now: int) -> list[Evidence]:
    """Return what was just seen as evidence; of the same thing twice, the last."""
    found = {
        (key := key_of(sighting, network)): Evidence(
            key=key, network=network, sighting=sighting, first=now, last=now
        )
        for sighting in sightings
        if identities_of(sighting, network)
    }
    return list(found.values())


def device_ids(
    devices: Iterable[Collection[str]], before: Mapping[str, str], taken: Collection[str]
) -> dict[frozenset[str], str]:
    """Give every device an id: the one that most of its evidence had *before*, else a new one.

    Args:
        devices: Each as the keys of its evidence.
        before: The ids that evidence had, by its key.
        taken: Ids of other devices, which stay theirs.
    """
    wishes = []
    for keys in map(frozenset, devices):
        had = [before[key] for key in keys if key in before]
        wishes += [(-had.count(each), each, sorted(keys), keys) for each in set(had)]
    given: dict[frozenset[str], str] = {}
    used: set[str] = set()
    for _, wish, _, keys in sorted(wishes, key=lambda wish: wish[:3]):
        if keys not in given and wish not in used:
            given[keys] = wish
            used.add(wish)
    used |= set(taken)
    for keys in sorted(map(frozenset, devices), key=sorted):
        if keys not in given:
            given[keys] = next(each for each in _new_ids(sorted(keys)) if each not in used)
            used.add(given[keys])
    return given


def _new_ids(keys: Sequence[str]) -> Iterable[str]:
    yield from (key[:_ID_CHARS] for key in keys)
    number = 0
    while True:
        number += 1
        yield hashlib.blake2b(f"{number}{keys[0]}".encode(), digest_size=_ID_CHARS // 2).hexdigest()


def describe(device_id: str, evidence: Sequence[Evidence]) -> FoundDevice:
    """Put together what is known of one device. *evidence* is not empty."""
    newest = sorted(evidence, key=lambda each: (-each.last, each.key))
    names = _once(
        name
        for method in (*_NAMED_FIRST, None)
        for each in newest
        if method is None or each.sighting.method == method
        for name in each.sighting.names
    )
    kinds = {identity.kind for each in evidence for identity in each.identities}
    addresses = _addresses(newest)
    macs = _once(mac for each in newest for mac in each.sighting.macs)
    return FoundDevice(
        id=device_id,
        name=next(iter((*names, *(each.address for each in addresses), *macs)), device_id),
        names=names,
        node=_first(each.sighting.node for each in newest),
        guid=_first(each.sighting.guid for each in newest),
        macs=macs,
        platform=_first(each.sighting.platform for each in newest),
        unit=_first(each.sighting.unit for each in newest),
        services=tuple(sorted({service for each in newest for service in each.sighting.services})),
        methods=tuple(sorted({each.sighting.method for each in newest})),
        networks=_once(each.network for each in newest),
        addresses=addresses,
        known_by=min(kinds, key=KINDS.index),
        first=min(each.first for each in evidence),
        last=newest[0].last,
    )


def _addresses(newest: Iterable[Evidence]) -> tuple[SeenAt, ...]:
    seen: dict[tuple[str, str], tuple[int, int]] = {}
    for each in newest:
        for address in each.sighting.addresses:
            first, last = seen.get((address, each.network), (each.first, each.last))
            seen[(address, each.network)] = (min(first, each.first), max(last, each.last))
    return tuple(
        SeenAt(address=address, network=network, first=first, last=last)
        for (address, network), (first, last) in sorted(
            seen.items(), key=lambda item: (-item[1][1], item[0])
        )[: limits.SIGHTING_ADDRESSES_MAX * 4]
    )


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _first(texts: Iterable[str]) -> str:
    return next((text for text in texts if text), "")
