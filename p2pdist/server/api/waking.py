"""Waking devices by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from p2pdist.errors import UsageError
from p2pdist.server.api.table import Call
from p2pdist.server.planestore import StoredPlane
from p2pdist.store import devices
from p2pdist.wire import api as wire

if TYPE_CHECKING:
    from p2pdist.server.api.context import Api


async def wake_device(api: Api, call: Call[None]) -> wire.Done:
    """Have a resting device come. One that has a link is there already."""
    record = await api.store.read(devices.resolve_device, call.path["id"])
    if record.node in api.attached():
        return wire.Done()
    if not api.service.plane.waker.wake(record.node, "synchronise"):
        raise UsageError(
            f"{record.name} is offline, and has not said where it could be woken",
            hint="a device that rests has enabled = true below [resting] in its configuration",
        )
    await api.note(call, "device.wake", f"{record.node} {record.name}")
    return wire.Done()


async def boot_device(api: Api, call: Call[None]) -> wire.Done:
    """Send a machine that is off Wake-on-LAN packets, to the interfaces that it has told of."""
    record = await api.store.read(devices.resolve_device, call.path["id"])
    if record.node in api.attached():
        return wire.Done()
    macs = [each.mac for each in await api.store.read(devices.list_interfaces, record.node)]
    device = await trio.to_thread.run_sync(StoredPlane(api.store).device, record.node)
    if device is None or record.revoked is not None or not macs:
        raise UsageError(
            f"{record.name} has not told of interfaces by which it could be woken",
            hint="a device tells of them when it is online",
        )
    points = await api.service.plane.waker.boot(device, record.via, macs)
    await api.note(call, "device.boot", f"{record.node} {record.name}; {points} points are at it")
    return wire.Done()
