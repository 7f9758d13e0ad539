"""Which enrolled devices are among what was seen: by what they say of themselves, and who carries them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import sqlalchemy as sa

from p2pdist import limits
from p2pdist.core.identities import Identity, is_chosen
from p2pdist.ids import NodeId
from p2pdist.store.sql import in_chunks
from p2pdist.store.tables import device_interfaces, devices, sighting_identities, sightings
from p2pdist.wire.discovery import Sighting, printable


def hashed(identity: Identity) -> str:
    """Return how an identity is stored: all are of one length."""
    return hashlib.blake2b("\0".join(identity).encode(), digest_size=16).hexdigest()


def seen_managed(connection: sa.Connection, seen: Iterable[Sighting], network: str) -> list[Sighting]:
    """Return the enrolled devices among what was *seen* in a network, as they say that they are.

    They are of the *network*, and their cards or their names were seen: the node which polls it carries
    them, or is that device, or for the admin server they have a link. Or they are of another one, and the
    kernel of who polls has seen a card of theirs that no other machine has; then no more is known of them
    here than that card. The node that polls is known by its addresses: its own card it does not see.
    """
    seen = list(seen)
    names = {name.casefold().rstrip(".") for sighting in seen for name in sighting.names}
    names |= {name.partition(".")[0] for name in names}
    macs = {mac for sighting in seen if sighting.method == "neighbours" for mac in sighting.macs}
    here, node = _here(connection, network), devices.c.node
    found = _itself(connection, seen, network)
    guests: set[NodeId] = set()
    for chunk in in_chunks(sorted(macs)):
        cards = sa.select(device_interfaces.c.node).where(device_interfaces.c.mac.in_(chunk))
        found.update(map(NodeId, connection.execute(sa.select(node).where(node.in_(cards), here)).scalars()))
        unique = [mac for mac in chunk if not is_chosen(mac)]
        cards = sa.select(device_interfaces.c.node).where(device_interfaces.c.mac.in_(unique))
        guests.update(map(NodeId, connection.execute(cards).scalars()))
    for chunk in in_chunks(sorted(names - {""})):
        query = sa.select(node).where(sa.func.lower(devices.c.name).in_(chunk), here)
        found.update(map(NodeId, connection.execute(query).scalars()))
    return managed_sightings(connection, found) + managed_sightings(connection, guests - found, cards=macs)


def reached_devices(connection: sa.Connection, seen: Sequence[Sighting], network: str) -> list[Sighting]:
    """Return what is believed of devices that a node says it has reached: those that came through it."""
    query = sa.select(devices.c.node).where(
        devices.c.node.in_([each.node for each in seen]),
        devices.c.revoked.is_(None),
        devices.c.via.in_((network, "")),
    )
    known = set(connection.execute(query).scalars()) if seen else set()
    return [
        Sighting(method="managed", node=each.node, addresses=each.addresses)
        for each in seen
        if each.node in known and each.addresses
    ]


def managed_sightings(
    connection: sa.Connection, nodes: Collection[NodeId], *, cards: Collection[str] | None = None
) -> list[Sighting]:
    """Return what enrolled devices that were not revoked say of themselves, as sightings.

    Args:
        cards: The hardware addresses of the interfaces that are spoken of; None: all.
    """
    interfaces: dict[str, list[tuple[str, list[str]]]] = {}
    found = []
    for chunk in in_chunks(sorted(nodes)):
        query = sa.select(device_interfaces).where(device_interfaces.c.node.in_(chunk))
        for row in connection.execute(query.order_by(device_interfaces.c.mac)):
            if cards is None or row.mac in cards:
                interfaces.setdefault(row.node, []).append((row.mac, row.addresses))
        columns = (devices.c.node, devices.c.name, devices.c.platform)
        for node, name, platform in connection.execute(
            sa.select(*columns).where(devices.c.node.in_(chunk), devices.c.revoked.is_(None))
        ):
            told = interfaces.get(node, [])
            addresses = sorted({each for _, those in told for each in those}, key=_global_first)
            found.append(
                Sighting(
                    method="managed",
                    node=node,
                    names=[printable(name, 255)] if printable(name) else [],
                    platform=printable(platform, 64),
                    macs=[mac for mac, _ in told][: limits.SIGHTING_MACS_MAX],
                    addresses=addresses[: limits.SIGHTING_ADDRESSES_MAX],
                )
            )
    return found


def networks_of(connection: sa.Connection, nodes: Collection[NodeId]) -> Mapping[str, list[NodeId]]:
    """Return the networks in which enrolled devices were seen and are now, with these devices."""
    known = {hashed(Identity("node", node, "")): node for node in nodes}
    seen: dict[str, list[NodeId]] = {}
    for chunk in in_chunks(sorted(known)):
        query = (
            sa.select(sightings.c.network, sighting_identities.c.identity)
            .join(sightings, sightings.c.number == sighting_identities.c.sighting)
            .where(sighting_identities.c.identity.in_(chunk))
            .distinct()
        )
        for network, identity in connection.execute(query):
            seen.setdefault(network, []).append(known[identity])
    present = {}
    for network, there in seen.items():
        query = sa.select(devices.c.node).where(devices.c.node.in_(there), _here(connection, network))
        if now := [NodeId(node) for node in connection.execute(query).scalars()]:
            present[network] = now
    return present


def _itself(connection: sa.Connection, seen: Iterable[Sighting], network: str) -> set[NodeId]:
    """Return the node that polls if it has found itself."""
    query = sa.select(device_interfaces.c.addresses).where(device_interfaces.c.node == network)
    own = {address for addresses in connection.execute(query).scalars() for address in addresses}
    return {NodeId(network)} if any(own & set(sighting.addresses) for sighting in seen) else set()


def _here(connection: sa.Connection, network: str) -> sa.ColumnElement[bool]:
    """The condition that a device is of a network: that of a point, or of the admin server itself."""
    is_point = connection.execute(sa.select(devices.c.node).where(devices.c.node == network)).first()
    carried = devices.c.via == (network if is_point else "")
    return sa.and_(devices.c.revoked.is_(None), sa.or_(carried, devices.c.node == network))


def _global_first(text: str) -> tuple[Any, ...]:
    address = ip_address(text)
    return address.is_link_local, address.version, int(address)
