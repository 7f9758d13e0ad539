"""The interfaces that devices tell of: they make them known in polls, and wake them when they are off."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from serverkit import Fleet, TestDevice, enrolled_device, open_fleet

from p2pdist.net.wakes import Segment
from p2pdist.server.control import waking
from p2pdist.store import devices
from p2pdist.wire import api as wire
from p2pdist.wire.discovery import Interface, Sighting
from p2pdist.wire.messages import Received, SendWakes
from p2pdist.wire.polling import Poll
from p2pdist.wire.tasks import TaskItem, TaskItems, TaskSightings

pytestmark = pytest.mark.slow  # whole servers

CARD = Interface(mac="00:1b:21:00:00:07", addresses=["10.1.0.7"])


@pytest.fixture(autouse=True)
def magic(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cards to which the admin server itself has sent packets, on no network at all."""
    sent: list[str] = []

    def send(sender: object, macs: Iterable[str], near: Iterable[Segment]) -> None:
        sent.extend(macs)

    monkeypatch.setattr(waking, "segments", list)
    monkeypatch.setattr(waking, "send_magic", send)
    return sent


async def a_point(fleet: Fleet, *duties: str) -> TestDevice:
    point = await enrolled_device(fleet, name="branch")
    fleet.publisher.add_grant(point.node, "/", duties=duties)
    await fleet.operator.publish(fleet.publisher)
    return point


async def tells(fleet: Fleet, device: TestDevice) -> None:
    """Have a device attach, tell of its card, and go."""
    async with device.attached() as link:
        beat = device.heartbeat(name="desk")
        await device.send(link, msgspec.structs.replace(beat, interfaces=[CARD]))
        while not await fleet.service.store.read(devices.list_interfaces, device.node):
            await fleet.service.store.read(devices.list_devices)


async def test_a_point_that_sees_the_card_of_a_device_has_found_that_device(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        point, desk = await a_point(fleet, "discovery"), await enrolled_device(fleet, name="desk")
        await tells(fleet, desk)
        body = wire.NewTask(work=Poll(ranges=["10.1.0.0/24"]), nodes=["branch"])
        made = await fleet.operator.ask("POST", "/tasks", wire.TaskInfo, body)
        async with point.attached() as link:
            frames = link.frames()
            seen = Sighting(method="neighbours", macs=[CARD.mac], addresses=["10.1.0.7"])
            await point.send(link, TaskSightings(id="s1", task=made.id, run=1, sightings=[seen]))
            item = TaskItem(subject="10.1.0.7", state="done", step="neighbours")
            await point.send(link, TaskItems(id="i1", task=made.id, run=1, items=[item]))
            received: set[str] = set()
            while not received >= {"s1", "i1"}:
                received |= set((await point.next_message(frames, Received)).ids)
        (found,) = (await fleet.operator.ask("GET", "/inventory", wire.FoundList)).devices
        assert (found.node, found.name, found.macs) == (desk.node, "desk", [CARD.mac])


async def test_a_machine_that_is_off_is_woken_by_the_points_near_it_and_by_the_server(
    tmp_path: Path, magic: list[str]
) -> None:
    async with open_fleet(tmp_path) as fleet:
        point, desk = await a_point(fleet, "push"), await enrolled_device(fleet, name="desk")
        await tells(fleet, desk)
        async with point.attached() as link:
            frames = link.frames()
            await point.send(link, point.heartbeat(name="branch"))
            await fleet.operator.ask("POST", "/devices/desk/boot", wire.Done)
            (order,) = (await point.next_message(frames, SendWakes)).orders
            assert (order.node, order.macs, order.endpoints) == (desk.node, [CARD.mac], [])
            assert order.magic is not None
            assert magic == [CARD.mac]
        audit = await fleet.operator.ask("GET", "/audit", wire.AuditList)
        assert audit.entries[0].action == "device.boot"


async def test_a_machine_whose_cards_nobody_knows_cannot_be_woken(tmp_path: Path, magic: list[str]) -> None:
    async with open_fleet(tmp_path) as fleet:
        await enrolled_device(fleet, name="desk")
        problem = await fleet.operator.problem("POST", "/devices/desk/boot")
        assert (problem.status, "has not told of interfaces" in problem.detail) == (400, True)
        assert magic == []
