"""The control plane's view of the store: whole steps, each in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from p2pdist import limits
from p2pdist.core.desired import Order
from p2pdist.errors import PeerError
from p2pdist.ids import GroupPath, NodeId, node_id_of
from p2pdist.logs import get_logger
from p2pdist.server.control.desk import Receiver
from p2pdist.server.control.devices import Device
from p2pdist.store import (
    content,
    deployments,
    devices,
    incidents,
    inventory,
    mailroom,
    proposals,
    tasks,
    waking,
)
from p2pdist.store.devices import CloneRefused
from p2pdist.store.fleetstore import FleetStore, QueryRefused
from p2pdist.store.records import DeviceRecord
from p2pdist.store.waking import WakeRecord
from p2pdist.wire.messages import ContentReport, FromDevice, Heartbeat, Progress, Refusal, Report
from p2pdist.wire.tasks import Assignment, TaskItems, TaskOffers, TaskProgress, TaskResult, TaskSightings

_log = get_logger()

Said = tuple[NodeId, Receiver, str, FromDevice]
"""A message with its sender, what that is, and who carries it (empty: its own link)."""


class StoredPlane:
    """What :class:`~p2pdist.server.control.plane.PlaneStore` asks for, over the fleet's store. Blocking."""

    def __init__(self, store: FleetStore) -> None:
        self._store = store

    def orders(self) -> Sequence[Order]:
        """Return every deployment that has not been stopped."""
        return self._store.read_now(deployments.active_orders)

    def assignments(self) -> Mapping[NodeId, Sequence[Assignment]]:
        """Return what each node has to do."""
        return self._store.read_now(tasks.active_assignments)

    def look(self, nodes: Sequence[NodeId]) -> tuple[Sequence[Order], Sequence[Device]]:
        """Return the deployments and these devices, as they were at one moment."""
        return self._store.read_now(_look, nodes)

    def revoked(self, now: int) -> Mapping[NodeId, GroupPath]:
        """Return the groups of the nodes that were revoked with a certificate that is still valid."""
        return self._store.read_now(devices.revoked_devices, now=now, rows_max=limits.REVOKED_NAMED_MAX)

    def wake_places(self) -> tuple[Sequence[WakeRecord], Sequence[Device]]:
        """Return the devices that can be woken."""
        return self._store.read_now(_wake_places)

    def save_wake_places(self, changes: Mapping[NodeId, WakeRecord | None], now: int) -> None:
        """Save what has changed; None: the device does not rest any more."""
        self._store.write_now(waking.save_wake_places, changes, now)

    def device(self, node: NodeId) -> Device | None:
        """Return a device that has been enrolled."""
        return self._store.read_now(_find_device, node)

    def enrol(
        self, *, token: str, public: bytes, name: str, platform: str, machine: str, host: str, now: int
    ) -> Device:
        """Use a token up and record the device; an attempt by a clone is recorded as well."""
        node = node_id_of(public)
        try:
            record, _ = self._store.write_now(
                devices.enrol_device,
                token=token,
                node=node,
                public=public,
                name=name,
                platform=platform,
                machine=machine,
                now=now,
            )
        except CloneRefused as error:
            self._store.write_now(devices.note_clone, node, host, error.what, now)
            raise
        return _device(record)

    def certificate_issued(self, node: NodeId, *, serial: int, expires: int, now: int) -> None:
        """Record a certificate before it is handed out."""
        self._store.write_now(
            devices.record_certificate, serial=f"{serial:x}", node=node, issued=now, expires=expires
        )

    def reserve_counters(self, count: int) -> int:
        """Reserve envelope counters; returns the number before the first."""
        return self._store.write_now(mailroom.reserve_counters, count).start - 1

    def clone_seen(self, node: NodeId, *, host: str, reason: str, now: int) -> None:
        """Record that another machine uses a device's key."""
        self._store.write_now(devices.note_clone, node, host, reason, now)

    def record(
        self, messages: Sequence[Said], windows: Mapping[NodeId, bytes], *, now: int
    ) -> frozenset[int]:
        """Store messages and replay windows; return the places of those that the database cannot take.

        A message that breaks a rule of the schema is a defect of ours. It must not hold up the others
        for ever, so then each is stored by itself.
        """
        try:
            self._store.write_now(_record, messages, windows, now)
        except QueryRefused as error:
            _log.error("messages.refused_by_database", count=len(messages), reason=str(error))
        else:
            return frozenset()
        refused = set()
        for place, message in enumerate(messages):
            try:
                self._store.write_now(_record, [message], {}, now)
            except QueryRefused as error:
                _log.error("message.dropped", node=message[0], reason=str(error))
                refused.add(place)
        return frozenset(refused)


def _look(connection: sa.Connection, nodes: Sequence[NodeId]) -> tuple[Sequence[Order], Sequence[Device]]:
    found = devices.find_devices(connection, nodes)
    return deployments.active_orders(connection), [_device(record) for record in found.values()]


def _wake_places(connection: sa.Connection) -> tuple[Sequence[WakeRecord], Sequence[Device]]:
    records = waking.load_wake_places(connection)
    found = devices.find_devices(connection, [record.node for record in records])
    return records, [_device(record) for record in found.values()]


def _find_device(connection: sa.Connection, node: NodeId) -> Device | None:
    record = devices.find_device(connection, node)
    if record is None:
        return None
    window = mailroom.load_windows(connection, [node]).get(node, b"")
    return msgspec.structs.replace(_device(record), window=window)


def _record(
    connection: sa.Connection, messages: Sequence[Said], windows: Mapping[NodeId, bytes], now: int
) -> None:
    beats: list[tuple[NodeId, Heartbeat, str]] = []
    progress: list[tuple[NodeId, Progress]] = []
    reports: list[tuple[NodeId, Report]] = []
    refusals: list[tuple[NodeId, Refusal]] = []
    contents: list[tuple[NodeId, Receiver, ContentReport]] = []
    task_progress: list[tuple[NodeId, TaskProgress]] = []
    task_items: list[tuple[NodeId, TaskItems]] = []
    task_results: list[tuple[NodeId, TaskResult]] = []
    task_sightings: list[tuple[NodeId, TaskSightings]] = []
    task_offers: list[tuple[NodeId, TaskOffers]] = []
    for node, receiver, via, message in messages:
        match message:
            case Heartbeat():
                beats.append((node, message, via))
            case Progress():
                progress.append((node, message))
            case Report():
                reports.append((node, message))
            case Refusal():
                refusals.append((node, message))
            case ContentReport():
                contents.append((node, receiver, message))
            case TaskProgress():
                task_progress.append((node, message))
            case TaskItems():
                task_items.append((node, message))
            case TaskSightings():
                task_sightings.append((node, message))
            case TaskOffers():
                task_offers.append((node, message))
            case TaskResult():
                task_results.append((node, message))
            case _:
                continue
    devices.record_heartbeats(connection, beats, now)
    told = [(node, beat.interfaces) for node, beat, _ in beats if beat.interfaces is not None]
    inventory.refresh_managed(connection, devices.record_interfaces(connection, told), now)
    deployments.record_progress(connection, progress, now)
    deployments.record_reports(connection, reports, now)
    incidents.record_refusals(connection, refusals)
    content.record_content(connection, contents, now)
    tasks.record_task_progress(connection, task_progress, now)
    tasks.record_task_items(connection, task_items, now)
    for node, seen in task_sightings:
        if tasks.is_known(connection, node, seen):
            inventory.record_sightings(connection, seen.sightings, network=node, now=now)
    for node, found in task_offers:
        proposals.record_offers(connection, node, found, now)
    tasks.record_task_results(connection, task_results, now)
    mailroom.save_windows(connection, windows)


def _device(record: DeviceRecord) -> Device:
    if node_id_of(record.public) != record.node:
        raise PeerError(f"the store's key of {record.node} is not its own")
    return Device(
        node=record.node,
        public=record.public,
        group=record.group_path,
        platform=record.platform,
        name=record.name,
        revoked=record.revoked_reason or "revoked" if record.revoked is not None else None,
    )
