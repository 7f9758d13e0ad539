"""Which sightings are of one device. Pure: the answer depends on what was seen, not on the order.

A device is known by its identities. The stronger one of two wins, and a weaker one only ties together what no
stronger one tells apart:

======== ============================================== ======================================
identity what it is                                      where it counts
======== ============================================== ======================================
node     the id of an enrolled node                      everywhere
guid     the number of a computer in a directory         everywhere
mac      the address of a network card                   everywhere; a random one in its network
host     a name with its domain                          within a network
name     a name without one                              within a network
address  an IP address, for an hour                      within a network
======== ============================================== ======================================

What shares an identity forms a *tie*. A tie holds when at most one of its parts has stronger identities of
each kind; otherwise it is a :class:`Conflict`: it is shown, and ties nobody together. So two nodes with one
MAC stay two, and what is known of the MAC alone belongs to neither. A MAC that at the same time has several
addresses where hosts call themselves differently is such a conflict, too: two devices, or a router.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

from p2pdist import limits
from p2pdist.wire.discovery import Method, Sighting

Kind = Literal["node", "guid", "mac", "host", "name", "address"]

KINDS: tuple[Kind, ...] = ("node", "guid", "mac", "host", "name", "address")
"""By strength."""

_TELL_APART: dict[Kind, tuple[Kind, ...]] = {
    "node": (),
    "guid": ("node",),
    "mac": ("node", "guid"),
    "host": ("node", "guid", "mac"),
    "name": ("node", "guid", "mac", "host"),
    "address": ("node", "guid", "mac"),  # one device has many names
}
"""Which kinds tell two parts of a tie apart."""

_CALL_THEMSELVES: frozenset[Method] = frozenset({"mdns", "netbios", "wsd"})
"""The methods by which a host says its own name."""

_NO_DOMAIN = ("", "local", "localdomain", "lan", "home", "home.arpa")
_NOBODYS_NAMES = frozenset({"localhost", "localhost.localdomain", "unknown", "android", "(none)"})
_NOBODYS_MACS = frozenset({"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"})


class Identity(NamedTuple):
    """Something that a device is known by. ``scope`` is the network where it counts; empty: everywhere."""

    kind: Kind
    value: str
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A sighting with where and when. Times are Unix seconds.

    Attributes:
        key: What makes it this piece of evidence and no other; the same thing seen again has the same.
        network: Names and addresses count within it.
    """

    key: str
    network: str
    sighting: Sighting
    first: int
    last: int

    @property
    def identities(self) -> frozenset[Identity]:
        """What the device is known by."""
        return identities_of(self.sighting, self.network)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """An identity that several devices claim.

    Attributes:
        claims: The keys of each device's evidence that has a part in it.
    """

    identity: Identity
    claims: frozenset[frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Which evidence is of one device, by its keys, and what could not be told."""

    devices: frozenset[frozenset[str]]
    conflicts: frozenset[Conflict]


def identities_of(sighting: Sighting, network: str) -> frozenset[Identity]:
    """Return what a device that was seen in *network* is known by.

    A node, a number or a card is one only where it does not come from the mouth of a stranger.
    """
    found = [Identity("address", address, network) for address in sighting.addresses]
    if sighting.node and sighting.method == "managed":
        found.append(Identity("node", sighting.node, ""))
    if sighting.guid and sighting.method == "directory":
        found.append(Identity("guid", sighting.guid, ""))
    for mac in sighting.macs if sighting.method in ("managed", "neighbours") else ():
        if mac not in _NOBODYS_MACS and not int(mac[:2], 16) & 1:  # a group's address
            found.append(Identity("mac", mac, network if is_chosen(mac) else ""))
    for name in sighting.names:
        found += _named(name.casefold().rstrip("."), network)
    return frozenset(found)


def is_chosen(mac: str) -> bool:
    """Whether a hardware address was chosen by software (IEEE 802, the U/L bit): others may have the same."""
    return bool(int(mac[:2], 16) & 2)


def _named(name: str, network: str) -> Iterable[Identity]:
    label, _, domain = name.partition(".")
    if name in _NOBODYS_NAMES or not label:
        return
    yield Identity("name", label, network)
    if domain not in _NO_DOMAIN:
        yield Identity("host", name, network)


def resolve(evidence: Sequence[Evidence]) -> Resolution:
    """Tell which evidence is of one device."""
    parts = _Sets(each.key for each in evidence)
    known = {each.key: each.identities for each in evidence}
    kinds = {key: {identity.kind for identity in identities} for key, identities in known.items()}
    several = _cards_of_several(evidence, known)
    contested: list[tuple[Identity, list[str]]] = []
    for kind in KINDS:
        ties = [tie for tie in _ties(kind, evidence, known) if len({parts.root(key) for key in tie[1]}) > 1]
        refused = _refused(kind, ties, parts, kinds)
        refused += [tie for tie in ties if tie[0] in several and tie not in refused]
        contested += refused
        for tie in ties:
            if tie not in refused:
                parts.join(tie[1])
    devices = parts.members()
    conflicts = _conflicts(contested, parts, devices, kinds)
    return Resolution(devices=frozenset(devices.values()), conflicts=frozenset(conflicts))


def _ties(
    kind: Kind, evidence: Iterable[Evidence], known: Mapping[str, frozenset[Identity]]
) -> list[tuple[Identity, list[str]]]:
    """Return each identity of *kind* with the keys of all who have it, if these are not too many."""
    holders: dict[Identity, list[Evidence]] = defaultdict(list)
    for each in evidence:
        for identity in known[each.key]:
            if identity.kind == kind:
                holders[identity].append(each)
    found = []
    for identity, those in holders.items():
        if kind == "address":
            found += [(identity, keys) for keys in _close_in_time(those)]
        elif kind in ("node", "guid") or len(those) <= limits.IDENTITY_HOLDERS_MAX:
            found.append((identity, [each.key for each in those]))
    return found


def _close_in_time(evidence: Iterable[Evidence]) -> list[list[str]]:
    """Cut what was seen at one address where nothing was seen there for a while."""
    groups: list[list[str]] = []
    before = None
    for each in sorted(evidence, key=lambda each: each.last):
        if before is None or each.last - before > limits.ADDRESS_TIE_S:
            groups.append([])
        groups[-1].append(each.key)
        before = each.last
    return groups


def _cards_of_several(
    evidence: Sequence[Evidence], known: Mapping[str, frozenset[Identity]]
) -> frozenset[Identity]:
    """Return the MACs that have several addresses at a time, where hosts call themselves differently."""
    speakers: dict[Identity, list[Evidence]] = defaultdict(list)
    cards: dict[Identity, list[Evidence]] = defaultdict(list)
    for each in evidence:
        for identity in known[each.key]:
            if identity.kind == "address" and each.sighting.method in _CALL_THEMSELVES:
                speakers[identity].append(each)
            elif identity.kind == "mac":
                cards[identity].append(each)
    return frozenset(
        card
        for card, those in cards.items()
        if len(those) <= limits.IDENTITY_HOLDERS_MAX and _differ(those, speakers, known)
    )


def _differ(
    card: Sequence[Evidence],
    speakers: Mapping[Identity, Sequence[Evidence]],
    known: Mapping[str, frozenset[Identity]],
) -> bool:
    """Whether, at the same time, a method has one name where one card was seen and another one elsewhere."""
    said: dict[tuple[str, Method], set[str]] = defaultdict(set)
    for seen in card:
        for address in known[seen.key]:
            for speaker in speakers.get(address, ()):
                if _at_once(seen, speaker):
                    names = {identity.value for identity in known[speaker.key] if identity.kind == "name"}
                    said[(seen.key, speaker.sighting.method)] |= names
    return any(
        names and others and not names & others
        for one, other in combinations(card, 2)
        if _at_once(one, other)
        for method in _CALL_THEMSELVES
        for names, others in [(said.get((one.key, method)), said.get((other.key, method)))]
    )


def _at_once(one: Evidence, other: Evidence) -> bool:
    return abs(one.last - other.last) <= limits.ADDRESS_TIE_S


def _refused(
    kind: Kind, ties: list[tuple[Identity, list[str]]], parts: _Sets, kinds: Mapping[str, set[Kind]]
) -> list[tuple[Identity, list[str]]]:
    """Return the ties that would tie what stronger identities tell apart, with all that hang on them."""
    together = _Sets(parts.root(key) for _, keys in ties for key in keys)
    for _, keys in ties:
        together.join([parts.root(key) for key in keys])
    stronger: dict[str, dict[Kind, set[str]]] = defaultdict(lambda: defaultdict(set))
    for key, those in kinds.items():
        root = parts.root(key)
        if root in together:
            for each in those & set(_TELL_APART[kind]):
                stronger[together.root(root)][each].add(root)
    several = {
        group for group, by_kind in stronger.items() if any(len(roots) > 1 for roots in by_kind.values())
    }
    return [tie for tie in ties if together.root(parts.root(tie[1][0])) in several]


def _conflicts(
    contested: Iterable[tuple[Identity, list[str]]],
    parts: _Sets,
    devices: Mapping[str, frozenset[str]],
    kinds: Mapping[str, set[Kind]],
) -> Iterator[Conflict]:
    claims: dict[Identity, set[frozenset[str]]] = defaultdict(set)
    for identity, keys in contested:
        claims[identity] |= {devices[parts.root(key)] for key in keys}
    for identity, those in claims.items():
        by_domain = identity.kind == "name" and all(
            any("host" in kinds[key] for key in device) for device in those
        )
        if len(those) > 1 and not by_domain:  # hosts of one name in several domains are no conflict
            yield Conflict(identity=identity, claims=frozenset(those))


class _Sets:
    """Disjoint sets of keys (Tarjan), which can be joined. A set's root is its least key, as they come."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._parent = {key: key for key in keys}

    def __contains__(self, key: str) -> bool:
        return key in self._parent

    def root(self, key: str) -> str:
        while self._parent[key] != key:
            self._parent[key] = self._parent[self._parent[key]]
            key = self._parent[key]
        return key

    def join(self, keys: Iterable[str]) -> None:
        roots = sorted({self.root(key) for key in keys})
        for root in roots[1:]:
            self._parent[root] = roots[0]

    def members(self) -> dict[str, frozenset[str]]:
        """Return every set by its root."""
        found: dict[str, list[str]] = defaultdict(list)
        for key in self._parent:
            found[self.root(key)].append(key)
        return {root: frozenset(keys) for root, keys in found.items()}
