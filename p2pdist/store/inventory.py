"""What discovery has seen, and which device each sighting is of.

What is stored is evidence: each different sighting once, with when it was first and last seen. Which device
it is of is decided anew, for everything that hangs together with what has just been seen, by
:mod:`p2pdist.core.identities`; so a conflict that appears later takes apart what was one device before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from p2pdist import limits
from p2pdist.core.identities import Conflict, Evidence, Identity, identities_of, resolve
from p2pdist.core.inventory import FoundDevice, describe, device_ids, evidence_of
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId
from p2pdist.store.managed import hashed, managed_sightings, networks_of, reached_devices, seen_managed
from p2pdist.store.records import InventoryConflictRecord, record_of
from p2pdist.store.sql import in_chunks, upsert
from p2pdist.store.tables import inventory_conflicts, sighting_identities, sightings
from p2pdist.wire.discovery import Sighting


def record_sightings(
    connection: sa.Connection, seen: Sequence[Sighting], *, network: str, now: int
) -> list[str]:
    """Take in what was just seen; the same twice is harmless.

    Who is enrolled is known here and nowhere else: where a sighting claims it, nothing counts but at which
    address of its own network the node has reached a device that has come through it since.

    Args:
        seen: At most ``SIGHTINGS_AT_ONCE``.
        network: The node that saw it: a distribution point, or the admin server.

    Returns:
        The ids of the devices that it is of, each once.
    """
    others = [sighting for sighting in seen if sighting.method != "managed"]
    reached = reached_devices(connection, [each for each in seen if each.method == "managed"], network)
    found = [*others, *seen_managed(connection, others, network), *reached]
    return _take_in(connection, found, network, now)


def refresh_managed(connection: sa.Connection, nodes: Collection[NodeId], now: int) -> None:
    """Devices have told of other interfaces: those that polls of their network have seen have them there."""
    for network, there in networks_of(connection, nodes).items():
        for start in range(0, len(there), limits.SIGHTINGS_AT_ONCE):
            seen = managed_sightings(connection, there[start : start + limits.SIGHTINGS_AT_ONCE])
            _take_in(connection, seen, network, now)


def _take_in(connection: sa.Connection, seen: Sequence[Sighting], network: str, now: int) -> list[str]:
    evidence = evidence_of(seen, network, now)
    _store(connection, evidence)
    related = _related(connection, [each.key for each in evidence], now)
    before = {key: device for key, (_, device) in related.items() if device}
    resolution = resolve([each for each, _ in related.values()])
    ids = device_ids(resolution.devices, before, _taken(connection, related))
    owner = {key: device for keys, device in ids.items() for key in keys}
    moved = [{"of": key, "to": device} for key, device in owner.items() if before.get(key) != device]
    if moved:
        move = sa.update(sightings).where(sightings.c.key == sa.bindparam("of"))
        connection.execute(move.values(device=sa.bindparam("to")), moved)
    _note_conflicts(connection, related, resolution.conflicts, owner, now)
    age_out(connection, now)
    return list(dict.fromkeys(owner[each.key] for each in evidence))


def age_out(connection: sa.Connection, now: int) -> None:
    """Forget what was not seen for ``SIGHTING_LIFE_S``, and the oldest of what is too much."""
    connection.execute(sa.delete(sightings).where(sightings.c.last < now - limits.SIGHTING_LIFE_S))
    held = sa.exists().where(sighting_identities.c.identity == inventory_conflicts.c.identity)
    connection.execute(sa.delete(inventory_conflicts).where(~held))
    over = connection.execute(sa.select(sa.func.count()).select_from(sightings)).scalar_one()
    over -= limits.SIGHTINGS_KEPT_MAX
    if over > 0:
        oldest = sa.select(sightings.c.number).order_by(sightings.c.last, sightings.c.number).limit(over)
        for chunk in in_chunks(connection.execute(oldest).scalars().all()):
            connection.execute(sa.delete(sightings).where(sightings.c.number.in_(chunk)))


def list_found(
    connection: sa.Connection, *, network: str = "", after: str = "", limit: int = limits.INVENTORY_ROWS_MAX
) -> list[FoundDevice]:
    """Return devices by their ids, those *after* one; with *network*, those that were seen in it."""
    query = sa.select(sightings.c.device).distinct().where(sightings.c.device > after)
    if network:
        query = query.where(sightings.c.network == network)
    ids = connection.execute(query.order_by(sightings.c.device).limit(limit)).scalars().all()
    return _described(connection, ids)


def find_found(connection: sa.Connection, text: str) -> FoundDevice:
    """Return the device whose id begins with *text*.

    Raises:
        UsageError: there is none, or more than one.
    """
    query = (
        sa.select(sightings.c.device).distinct().where(sightings.c.device.startswith(text, autoescape=True))
    )
    ids = connection.execute(query.order_by(sightings.c.device).limit(2)).scalars().all() if text else []
    if len(ids) > 1 and text not in ids:
        raise UsageError(f"several discovered devices begin with {text[:20]!r}", hint="write more of the id")
    if not ids:
        raise UsageError(
            f"no discovered device is {text[:20]!r}", hint="p2pdist inventory list shows those that are"
        )
    return _described(connection, ids[:1])[0]


def forget_found(connection: sa.Connection, text: str) -> FoundDevice:
    """Forget a device; it comes back when it is seen again. Raises UsageError as :func:`find_found` does."""
    found = find_found(connection, text)
    connection.execute(sa.delete(sightings).where(sightings.c.device == found.id))
    return found


def list_conflicts(connection: sa.Connection) -> list[tuple[InventoryConflictRecord, list[FoundDevice]]]:
    """Return each identity that several devices claim, newest first, with those of them that still are."""
    query = (
        sa.select(inventory_conflicts)
        .order_by(inventory_conflicts.c.since.desc(), inventory_conflicts.c.identity)
        .limit(limits.INVENTORY_CONFLICTS_MAX)
    )
    found = [record_of(row, InventoryConflictRecord) for row in connection.execute(query).mappings()]
    named = {
        each.id: each
        for each in _described(connection, {device for record in found for device in record.devices})
    }
    parties = [(record, [named[device] for device in record.devices if device in named]) for record in found]
    return [(record, those) for record, those in parties if len(those) > 1]


# Inside ----------------------------------------------------------------------------------------------


def _store(connection: sa.Connection, evidence: Sequence[Evidence]) -> None:
    known = set(_numbers(connection, evidence))
    rows = [
        {
            "key": each.key,
            "device": "",
            "network": each.network,
            "sighting": msgspec.to_builtins(each.sighting),
            "first": each.first,
            "last": each.last,
        }
        for each in evidence
    ]
    if again := [
        {"of": row["key"], "said": row["sighting"], "at": row["last"]} for row in rows if row["key"] in known
    ]:
        seen_again = sa.update(sightings).where(sightings.c.key == sa.bindparam("of"))
        seen_again = seen_again.values(sighting=sa.bindparam("said"), last=sa.bindparam("at"))
        connection.execute(seen_again, again)
    if new := [row for row in rows if row["key"] not in known]:
        connection.execute(sightings.insert(), new)
        numbers = _numbers(connection, evidence)
        identities = [
            {"sighting": numbers[each.key], "identity": hashed(identity)}
            for each in evidence
            if each.key not in known
            for identity in each.identities
        ]
        connection.execute(sighting_identities.insert(), identities)


def _numbers(connection: sa.Connection, evidence: Iterable[Evidence]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in in_chunks(each.key for each in evidence):
        query = sa.select(sightings.c.key, sightings.c.number).where(sightings.c.key.in_(chunk))
        found.update((key, number) for key, number in connection.execute(query))
    return found


def _related(connection: sa.Connection, keys: Collection[str], now: int) -> dict[str, tuple[Evidence, str]]:
    """Return everything that hangs together with some evidence, by its key, with the device of each.

    Of one address, that is what was seen there lately. It ends at ``SIGHTINGS_RELATED_MAX``: what is beyond
    them stays with its device.
    """
    found = _rows(connection, sightings.c.key, keys)
    new = dict(found)
    while new and len(found) < limits.SIGHTINGS_RELATED_MAX:
        identities = {identity for each, _ in new.values() for identity in each.identities}
        numbers = _holders(connection, identities, now)
        candidates = _rows(connection, sightings.c.number, numbers)
        candidates |= _rows(connection, sightings.c.device, {device for _, device in new.values()} - {""})
        new = {key: each for key, each in candidates.items() if key not in found}
        found |= new
    return found


def _holders(connection: sa.Connection, identities: Iterable[Identity], now: int) -> set[int]:
    """Return the sightings that have one of *identities*, but for those that too many have."""
    column, numbers = sighting_identities.c.identity, set[int]()
    split: dict[str, list[str]] = {"strong": [], "weak": [], "address": []}
    for identity in identities:
        kind = identity.kind
        strength = "address" if kind == "address" else "strong" if kind in ("node", "guid") else "weak"
        split[strength].append(hashed(identity))
    for strength, hashes in split.items():
        for chunk in in_chunks(hashes):
            query = sa.select(sighting_identities.c.sighting).where(column.in_(chunk))
            if strength == "address":
                query = query.join(sightings).where(sightings.c.last >= now - 2 * limits.ADDRESS_TIE_S)
            elif strength == "weak":
                rare = (
                    sa.select(column)
                    .where(column.in_(chunk))
                    .group_by(column)
                    .having(sa.func.count() <= limits.IDENTITY_HOLDERS_MAX)
                )
                query = query.where(column.in_(rare))
            numbers |= set(connection.execute(query).scalars())
    return numbers


def _rows(
    connection: sa.Connection, column: sa.Column[Any], values: Iterable[Any]
) -> dict[str, tuple[Evidence, str]]:
    found = {}
    for chunk in in_chunks(values):
        for row in connection.execute(sa.select(sightings).where(column.in_(chunk))).mappings():
            evidence = Evidence(
                key=row["key"],
                network=row["network"],
                sighting=msgspec.convert(row["sighting"], Sighting),
                first=row["first"],
                last=row["last"],
            )
            found[evidence.key] = (evidence, str(row["device"]))
    return found


def _taken(connection: sa.Connection, related: Mapping[str, tuple[Evidence, str]]) -> set[str]:
    """Return the ids that evidence beyond *related* has, among those that could be given."""
    taken = set()
    for chunk in in_chunks(key[:12] for key in related):
        query = sa.select(sightings.c.key, sightings.c.device).where(sightings.c.device.in_(chunk))
        taken |= {device for key, device in connection.execute(query) if key not in related}
    return taken


def _note_conflicts(
    connection: sa.Connection,
    related: Mapping[str, tuple[Evidence, str]],
    conflicts: Iterable[Conflict],
    owner: Mapping[str, str],
    now: int,
) -> None:
    """Write down what could not be told, with since when; what can be told now is none any more."""
    table = inventory_conflicts
    looked_at = {
        hashed(i) for each, _ in related.values() for i in identities_of(each.sighting, each.network)
    }
    since: dict[str, int] = {}
    for chunk in in_chunks(looked_at):
        query = sa.select(table.c.identity, table.c.since).where(table.c.identity.in_(chunk))
        since |= {row.identity: row.since for row in connection.execute(query)}
        connection.execute(sa.delete(table).where(table.c.identity.in_(chunk)))
    rows = [
        {
            "identity": (hash_of := hashed(conflict.identity)),
            "kind": conflict.identity.kind,
            "value": conflict.identity.value,
            "network": conflict.identity.scope,
            "devices": sorted({owner[key] for keys in conflict.claims for key in keys}),
            "since": since.get(hash_of, now),
        }
        for conflict in conflicts
    ]
    upsert(connection, table, rows)


def _described(connection: sa.Connection, ids: Iterable[str]) -> list[FoundDevice]:
    by_device: dict[str, list[Evidence]] = {}
    for evidence, device in _rows(connection, sightings.c.device, list(ids)).values():
        by_device.setdefault(device, []).append(evidence)
    return [describe(device, by_device[device]) for device in sorted(by_device)]
