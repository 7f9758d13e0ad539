"""Enrolled nodes: who they are, where they stand, whether they are still welcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from p2pdist import limits
from p2pdist.errors import TrustError, UsageError
from p2pdist.ids import GroupPath, NodeId
from p2pdist.store.groups import require_group
from p2pdist.store.records import CloneRecord, DeviceRecord, EnrolmentTokenRecord, record_of
from p2pdist.store.sql import below, clean, in_chunks, upsert
from p2pdist.store.tables import certificates, clone_sightings, device_interfaces, devices
from p2pdist.store.tokens import use_enrolment_token
from p2pdist.wire.discovery import Interface
from p2pdist.wire.messages import Heartbeat

_ROOT = GroupPath("/")


class CloneRefused(TrustError):
    """The key of a device was shown by another machine."""


def enrol_device(
    connection: sa.Connection,
    *,
    token: str,
    node: NodeId,
    public: bytes,
    name: str,
    platform: str,
    machine: str,
    now: int,
) -> tuple[DeviceRecord, EnrolmentTokenRecord]:
    """Make a node a member of the fleet, and take one use of the token for it.

    The same machine with the same key is the same device: it stands where it stood.

    Raises:
        TrustError: the token does not allow it, the device was revoked, or the key is already that of
            another machine (:class:`CloneRefused`). Then no use of the token was taken.
    """
    known = find_device(connection, node)
    if known is not None:
        _check_again(known, machine)
    used = use_enrolment_token(connection, token, now)
    if known is None:
        row: dict[str, Any] = {
            "node": node,
            "name": clean(name),
            "platform": clean(platform),
            "group_path": used.group_path,
            "public": public,
            "machine": clean(machine),
            "enrolled": now,
            "metadata_versions": {},
            "swarms": [],
            "installed": {},
        }
        connection.execute(devices.insert().values(**row))
    else:
        connection.execute(
            sa.update(devices)
            .where(devices.c.node == node)
            .values(name=clean(name), platform=clean(platform), machine=clean(machine or known.machine))
        )
    return require_device(connection, node), used


def _check_again(known: DeviceRecord, machine: str) -> None:
    if known.revoked is not None:
        raise TrustError(
            f"{known.name} ({known.node}) was revoked: {known.revoked_reason}",
            hint="delete its identity.key there, so that it enrols as a new device",
        )
    if known.machine and machine != known.machine:
        raise CloneRefused(
            f"this machine has the identity key of {known.name} ({known.node}), which is another machine:"
            " its disk was cloned",
            hint="delete identity.key in this machine's data directory and enrol it with a new token",
        )


def find_device(connection: sa.Connection, node: NodeId) -> DeviceRecord | None:
    """Return a device, or None."""
    row = connection.execute(sa.select(devices).where(devices.c.node == node)).mappings().first()
    return record_of(row, DeviceRecord) if row is not None else None


def require_device(connection: sa.Connection, node: NodeId) -> DeviceRecord:
    """Return a device. Raises UsageError if there is none with this id."""
    device = find_device(connection, node)
    if device is None:
        raise UsageError(f"there is no device {node}", hint="p2pdist device list shows them")
    return device


def resolve_device(connection: sa.Connection, text: str) -> DeviceRecord:
    """Return the device whose id or name is *text*, or whose id begins with it.

    Raises:
        UsageError: there is none, or more than one.
    """
    called = [devices.c.node == clean(text), devices.c.name == clean(text)]
    if len(text) >= 4:
        called.append(devices.c.node.startswith(clean(text), autoescape=True))
    query = sa.select(devices).where(sa.or_(*called)).order_by(devices.c.node).limit(5)
    found = [record_of(row, DeviceRecord) for row in connection.execute(query).mappings()]
    exact = [device for device in found if device.node == text]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        raise UsageError(f"there is no device {text[:80]!r}", hint="p2pdist device list shows them")
    named = ", ".join(f"{device.node[:12]} ({device.name})" for device in found)
    raise UsageError(f"{text[:80]!r} could be several devices: {named}", hint="write more of the id")


def list_devices(
    connection: sa.Connection, *, group: GroupPath = _ROOT, revoked: bool = True
) -> list[DeviceRecord]:
    """Return the devices of a group with its subgroups, by name."""
    query = sa.select(devices).where(below(devices.c.group_path, group))
    if not revoked:
        query = query.where(devices.c.revoked.is_(None))
    query = query.order_by(devices.c.name, devices.c.node)
    return [record_of(row, DeviceRecord) for row in connection.execute(query).mappings()]


def move_device(connection: sa.Connection, node: NodeId, group: GroupPath) -> DeviceRecord:
    """Put a device into another group. Raises UsageError if either is not there."""
    require_device(connection, node)
    require_group(connection, group)
    connection.execute(sa.update(devices).where(devices.c.node == node).values(group_path=group))
    return require_device(connection, node)


def revoke_device(connection: sa.Connection, node: NodeId, reason: str, now: int) -> DeviceRecord:
    """Take a device out of the fleet for good. Raises UsageError if it is not there."""
    require_device(connection, node)
    connection.execute(
        sa.update(devices)
        .where(devices.c.node == node, devices.c.revoked.is_(None))
        .values(revoked=now, revoked_reason=clean(reason))
    )
    return require_device(connection, node)


def revoked_devices(connection: sa.Connection, *, now: int, rows_max: int) -> dict[NodeId, GroupPath]:
    """Return the devices that were revoked with a certificate that is still valid, the newest first.

    Returns:
        The group of each, at most *rows_max*.
    """
    valid = sa.select(certificates.c.node).where(certificates.c.expires > now)
    query = (
        sa.select(devices.c.node, devices.c.group_path)
        .where(devices.c.revoked.is_not(None), devices.c.node.in_(valid))
        .order_by(devices.c.revoked.desc(), devices.c.node)
        .limit(rows_max)
    )
    return {NodeId(node): GroupPath(group) for node, group in connection.execute(query)}


def note_clone(connection: sa.Connection, node: NodeId, host: str, reason: str, now: int) -> None:
    """Remember that somebody else showed a device's key. The newest sightings of each device are kept."""
    connection.execute(sa.update(devices).where(devices.c.node == node).values(clones=devices.c.clones + 1))
    connection.execute(
        clone_sightings.insert().values(node=node, at=now, host=clean(host), reason=clean(reason))
    )
    of_node = clone_sightings.c.node == node
    newest_first = (
        sa.select(clone_sightings.c.number).where(of_node).order_by(clone_sightings.c.number.desc())
    )
    too_old = connection.execute(newest_first.limit(1).offset(limits.CLONE_SIGHTINGS_MAX)).scalar()
    if too_old is not None:
        connection.execute(sa.delete(clone_sightings).where(of_node, clone_sightings.c.number <= too_old))


def list_clones(connection: sa.Connection, node: NodeId) -> list[CloneRecord]:
    """Return the sightings of clones of a device, newest first."""
    query = (
        sa.select(clone_sightings)
        .where(clone_sightings.c.node == node)
        .order_by(clone_sightings.c.number.desc())
    )
    return [record_of(row, CloneRecord) for row in connection.execute(query).mappings()]


def record_heartbeats(
    connection: sa.Connection, items: Sequence[tuple[NodeId, Heartbeat, str]], now: int
) -> None:
    """Store what devices say of themselves. Each item is the node, its heartbeat, and who carries it."""
    rows = [
        {
            "key": node,
            "name": clean(beat.name),
            "platform": clean(beat.platform),
            "program": clean(beat.program),
            "revision_known": beat.revision,
            "certificate_expires": beat.certificate_expires,
            "disk_free_bytes": beat.disk_free_bytes,
            "metadata_versions": dict(beat.metadata),
            "swarms": list(beat.swarms),
            "installed": dict(beat.installed),
            "via": via,
            "last_seen": now,
        }
        for node, beat, via in items
    ]
    _update_devices(connection, rows)


def record_interfaces(
    connection: sa.Connection, items: Sequence[tuple[NodeId, Sequence[Interface]]]
) -> list[NodeId]:
    """Store the interfaces that devices tell of; return those devices that had others before."""
    table = device_interfaces
    said = {node: {each.mac: list(each.addresses) for each in interfaces} for node, interfaces in items}
    known: dict[NodeId, dict[str, list[str]]] = {node: {} for node in find_devices(connection, list(said))}
    for chunk in in_chunks(sorted(known)):
        for row in connection.execute(sa.select(table).where(table.c.node.in_(chunk))):
            known[NodeId(row.node)][row.mac] = row.addresses
    changed = [node for node in sorted(known) if said[node] != known[node]]
    for chunk in in_chunks(changed):
        connection.execute(sa.delete(table).where(table.c.node.in_(chunk)))
    rows = [
        {"node": node, "mac": mac, "addresses": addresses}
        for node in changed
        for mac, addresses in said[node].items()
    ]
    if rows:
        connection.execute(table.insert(), rows)
    return changed


def list_interfaces(connection: sa.Connection, node: NodeId) -> list[Interface]:
    """Return the interfaces that a device has told of."""
    table = device_interfaces
    query = sa.select(table.c.mac, table.c.addresses).where(table.c.node == node).order_by(table.c.mac)
    return [Interface(mac=mac, addresses=addresses) for mac, addresses in connection.execute(query)]


def record_certificate(
    connection: sa.Connection, *, serial: str, node: NodeId, issued: int, expires: int
) -> None:
    """Remember a certificate before it is handed out; forget those that have long expired."""
    upsert(connection, certificates, [{"serial": serial, "node": node, "issued": issued, "expires": expires}])
    connection.execute(sa.update(devices).where(devices.c.node == node).values(certificate_expires=expires))
    connection.execute(
        sa.delete(certificates).where(certificates.c.expires < issued - limits.CERTIFICATES_KEPT_S)
    )


def find_devices(connection: sa.Connection, nodes: Sequence[NodeId]) -> dict[NodeId, DeviceRecord]:
    """Return those of *nodes* that are enrolled."""
    found: dict[NodeId, DeviceRecord] = {}
    for chunk in in_chunks(nodes):
        query = sa.select(devices).where(devices.c.node.in_(chunk))
        for row in connection.execute(query).mappings():
            found[NodeId(row["node"])] = record_of(row, DeviceRecord)
    return found


def count_devices(connection: sa.Connection, *, seen_since: int) -> tuple[int, int, int]:
    """Return how many devices are enrolled, how many of those were heard of since, how many are revoked."""
    welcome = devices.c.revoked.is_(None)
    seen, revoked, enrolled = (
        connection.execute(sa.select(sa.func.count()).select_from(devices).where(*those)).scalar_one()
        for those in ((welcome, devices.c.last_seen >= seen_since), (~welcome,), (welcome,))
    )
    return enrolled, seen, revoked


def _update_devices(connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    columns = [name for name in rows[0] if name != "key"]
    statement = (
        sa.update(devices)
        .where(devices.c.node == sa.bindparam("key"))
        .values({name: sa.bindparam(f"new_{name}") for name in columns})
    )
    bound = [{"key": row["key"], **{f"new_{name}": row[name] for name in columns}} for row in rows]
    connection.execute(statement, bound)
