"""Which points are asked to wake a resting device, and when the admin server does it itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import trio
import trio.testing

from p2pdist.core.ways import begins_straight
from p2pdist.ids import FleetName, GroupPath, NodeId
from p2pdist.server.control import waking
from p2pdist.server.control.devices import Device, Directory
from p2pdist.server.control.telling import Teller
from p2pdist.server.control.waking import Waker
from p2pdist.store.waking import WakeRecord
from p2pdist.trust.catalog import SeedGrant
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.wakes import WakeKey
from p2pdist.wire.messages import FromServer, Heartbeat, RateLimits, SendWakes
from p2pdist.wire.wakes import WakePlace

pytestmark = pytest.mark.slow  # whole servers, their databases and certificates

SERVER = IdentityKey.generate()
KEYS = [IdentityKey.generate() for _ in range(4)]
PLACE = WakePlace(port=7604, addresses=["192.0.2.7"])


class Desk:
    """Takes down what is said to whom, and to whom something is owed."""

    def __init__(self) -> None:
        self.said: list[tuple[NodeId, FromServer]] = []
        self.owed: set[NodeId] = set()

    async def send(self, recipient: Device, message: FromServer) -> bool:
        self.said.append((recipient.node, message))
        return True

    def owes(self, node: NodeId) -> bool:
        return node in self.owed


class Store:
    """Keeps wake places in memory."""

    def __init__(self, devices: Sequence[Device] = (), records: Sequence[WakeRecord] = ()) -> None:
        self.devices = devices
        self.records: dict[NodeId, WakeRecord | None] = {record.node: record for record in records}
        self._counter = 0

    def wake_places(self) -> tuple[Sequence[WakeRecord], Sequence[Device]]:
        return [record for record in self.records.values() if record is not None], self.devices

    def save_wake_places(self, changes: Mapping[NodeId, WakeRecord | None], now: int) -> None:
        self.records |= changes

    def reserve_counters(self, count: int) -> int:
        self._counter += count
        return self._counter - count


class Catalog:
    """As much of a catalog as says who may do what."""

    def __init__(self, *grants: SeedGrant) -> None:
        self.grants = {grant.node: grant for grant in grants}
        self.releases: dict[str, object] = {}


def beat(place: WakePlace | None = PLACE, woken: int = 0) -> Heartbeat:
    return Heartbeat(
        revision=1,
        metadata={},
        platform="linux-x86_64",
        program="p2pdist",
        name="d0",
        certificate_expires=2**40,
        swarms=[],
        disk_free_bytes=0,
        installed={},
        wake=place,
        woken=woken,
    )


def device(number: int, group: str = "/emea") -> Device:
    key = KEYS[number]
    return Device(
        node=key.node, public=key.public, group=GroupPath(group), platform="linux-x86_64", name=f"d{number}"
    )


def grant(number: int, *duties: str, scope: str = "/emea") -> SeedGrant:
    return SeedGrant(
        node=KEYS[number].node,
        duties=duties,
        scope=GroupPath(scope),
        addresses=(),
        expires=2**40,
    )


class Plane:
    """A waker with what is around it."""

    def __init__(self, *grants: SeedGrant, carrier: NodeId | None = None, store: Store | None = None) -> None:
        self.directory = Directory(FleetName("acme"), rates={}, heartbeat_s=300)
        self.directory.catalog = Catalog(*grants)
        self.desk = Desk()
        self.store = store or Store()
        self.waker = Waker(
            SERVER,
            self.directory,
            self.desk,
            self.store,
            trio.CapacityLimiter(1),
            lambda node: carrier,
            Teller(self.directory, self.desk, self.store, trio.CapacityLimiter(1), trio.lowlevel.checkpoint),
        )

    def rests(self, number: int = 0) -> Device:
        """Have a device attach, be told everything, say where it can be woken, and go."""
        resting = device(number)
        self.directory.learn(resting)
        self.directory.state_for(resting.node, known=None, now=1, now_ms=1_000)
        self.waker.heard(resting.node, beat())
        self.waker.left(resting.node)
        self.directory.forget(resting.node)
        return resting

    async def until_said(self) -> list[tuple[NodeId, FromServer]]:
        with trio.fail_after(5):
            while not self.desk.said:
                await trio.sleep(0.01)
        return self.desk.said


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts to which the admin server itself has sent wakes."""
    hosts: list[str] = []

    def to(sender: object, datagram: bytes, endpoints: Sequence[object]) -> None:
        hosts.extend(endpoint.host for endpoint in endpoints)

    monkeypatch.setattr(waking.WakeSender, "to", to)
    return hosts


async def running(plane: Plane, nursery: trio.Nursery) -> None:
    await plane.waker.load()
    nursery.start_soon(plane.waker.run)


async def looked(plane: Plane) -> None:
    plane.waker.look()
    with trio.fail_after(5):
        while plane.waker._to_look:
            await trio.sleep(0.01)
    await trio.testing.wait_all_tasks_blocked()


async def test_the_point_that_carried_it_last_is_asked_alone(
    nursery: trio.Nursery, straight: list[str]
) -> None:
    plane = Plane(grant(1, "seed", "push"), grant(2, "seed", "push"), carrier=KEYS[1].node)
    await running(plane, nursery)
    resting = plane.rests()
    plane.directory.learn(device(1))
    plane.directory.learn(device(2))
    assert plane.waker.wake(resting.node, "deployment")
    ((asked, message),) = await plane.until_said()
    assert asked == KEYS[1].node and isinstance(message, SendWakes)
    (order,) = message.orders
    wake = WakeKey(KEYS[0], SERVER.public).open(order.datagram, newer_than=0, now=0)
    assert wake.reason == "deployment" and straight == []


async def test_a_point_without_the_duty_or_outside_its_scope_is_not_asked(
    nursery: trio.Nursery, straight: list[str]
) -> None:
    plane = Plane(grant(1, "seed"), grant(2, "seed", "push", scope="/apac"), carrier=KEYS[1].node)
    await running(plane, nursery)
    resting = plane.rests()
    plane.directory.learn(device(1))
    plane.directory.learn(device(2))
    plane.waker.wake(resting.node, "synchronise")
    with trio.fail_after(5):
        while not straight:
            await trio.sleep(0.01)
    assert plane.desk.said == [] and straight[0] == "192.0.2.7"


async def test_the_way_on_which_a_device_came_is_counted_and_taken_first_the_next_time(
    nursery: trio.Nursery, straight: list[str]
) -> None:
    plane = Plane(grant(1, "seed", "push"), carrier=KEYS[1].node)
    await running(plane, nursery)
    plane.directory.learn(device(1))
    for _ in range(2):
        resting = plane.rests()
        straight.clear()
        plane.waker.wake(resting.node, "synchronise")
        with trio.fail_after(10):
            while not straight:  # the point brings nothing
                await trio.sleep(0.01)
        plane.directory.learn(resting)
        woken = plane.waker._sealed[resting.node].counters["straight"]
        plane.waker.heard(resting.node, beat(woken=woken))
    record = plane.waker._records[resting.node]
    assert {way: (known.tried, known.reached) for way, known in record.ways.items()} == {
        "point": (2, 0),
        "straight": (2, 2),
    }
    assert begins_straight(record.ways)


async def test_a_change_wakes_only_those_who_should_know_something_else(nursery: trio.Nursery) -> None:
    plane = Plane()
    await running(plane, nursery)
    resting = plane.rests()
    await looked(plane)
    assert not plane.waker._began
    plane.directory.set_rates({GroupPath("/emea"): RateLimits(wan_down=1)})
    await looked(plane)
    assert set(plane.waker._began) == {resting.node}


async def test_a_restart_wakes_nobody_for_nothing_and_remembers_who_rests(nursery: trio.Nursery) -> None:
    plane = Plane()
    await running(plane, nursery)
    resting = plane.rests()
    with trio.fail_after(5):
        while resting.node not in plane.store.records:
            await trio.sleep(0.01)
    again = Plane(store=Store([resting], [r for r in plane.store.records.values() if r is not None]))
    await running(again, nursery)
    await looked(again)
    assert again.waker.resting == {resting.node} and not again.waker._began


async def test_what_was_said_and_not_opened_is_called_for_unless_the_answer_was_only_late(
    nursery: trio.Nursery,
) -> None:
    plane = Plane()
    await running(plane, nursery)
    plane.desk.owed.add(KEYS[0].node)
    resting = plane.rests()
    assert set(plane.waker._began) == {resting.node}
    plane.desk.owed.clear()
    plane.waker.heard(resting.node, beat())
    assert not plane.waker._began and plane.waker.resting == {resting.node}
    await looked(plane)
    assert not plane.waker._began, "it knows what it should"


async def test_a_device_that_does_not_rest_any_more_is_forgotten(nursery: trio.Nursery) -> None:
    plane = Plane()
    await running(plane, nursery)
    resting = plane.rests()
    plane.directory.learn(resting)
    plane.waker.heard(resting.node, beat(None))
    plane.waker.left(resting.node)
    assert plane.waker.resting == frozenset()
    assert not plane.waker.wake(resting.node, "session")
