"""Devices that rest: no link, until a datagram has them come; and what forged and lost ones do."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fleet_logs import LogBook
from fleet_processes import Processes
from harness import Fleet, Node, open_fleet

from p2pdist.agent import resting
from p2pdist.errors import Unavailable
from p2pdist.net.wakes import WakeSender
from p2pdist.node.config import RestingTable
from p2pdist.seed import waking
from p2pdist.wire.discovery import Interface
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.wakes import DATAGRAM_BYTES

pytestmark = pytest.mark.slow

RESTING = RestingTable(enabled=True, after_s=0.5)
PUSH = ("seed", "push")


class Wire:
    """What wakes are sent over, in place of the kernel's: it remembers them, and can lose them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, lost: int = 0) -> None:
        self.sent: list[tuple[bytes, list[Endpoint]]] = []
        carry = WakeSender.to

        def to(sender: WakeSender, datagram: bytes, endpoints: Iterable[Endpoint]) -> None:
            self.sent.append((datagram, list(endpoints)))
            if len(self.sent) > lost:
                carry(sender, datagram, self.sent[-1][1])

        monkeypatch.setattr(WakeSender, "to", to)

    def again(self, change: int | None = None) -> int:
        """Send all of it once more, with one byte changed if it is said which; return how many."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for datagram, endpoints in self.sent:
                data = bytearray(datagram)
                if change is not None:
                    data[change] ^= 1
                for endpoint in endpoints:
                    stranger.sendto(data, (endpoint.host, endpoint.port))
        return len(self.sent)


@asynccontextmanager
async def open_resting(
    directory: Path,
    log_book: LogBook,
    *,
    duties: Sequence[str] = PUSH,
    table: RestingTable = RESTING,
    **kw: Any,
) -> Any:
    """A fleet with one point and one device, which rests."""
    async with open_fleet(directory, log_book, points=0, devices=0, **kw) as fleet:
        await fleet.add_point(duties=duties)
        await fleet.publish()
        device = await fleet.add_device(resting=table)
        await rests(fleet, device, 1)
        yield fleet, device


async def rests(fleet: Fleet, device: Node, times: int) -> None:
    def at_rest() -> bool:
        said = [
            line["event"]
            for line in fleet.log.find("device.rests", who=device.name)
            + fleet.log.find("link.down", who=device.name)
        ]
        return said.count("device.rests") >= times and said.count("link.down") >= times

    await fleet.until(at_rest, f"{device.name} rests, {times} times")


def rises(fleet: Fleet, device: Node) -> list[bool]:
    return [line["woken"] for line in fleet.log.find("device.rises", who=device.name)]


async def test_a_resting_device_is_woken_by_its_point_installs_reports_and_rests_again(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_resting(tmp_path, log_book, form=Processes(log_book)) as (fleet, device):
        release = await fleet.release()
        await fleet.until_installed(release)
        await fleet.until_reported(release)
        await rests(fleet, device, 2)
        assert rises(fleet, device) == [True]


async def test_without_a_point_that_may_push_the_admin_server_wakes_it_itself(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_resting(tmp_path, log_book, duties=("seed",)) as (fleet, device):
        release = await fleet.release()
        await fleet.until_installed(release)
        assert rises(fleet, device) == [True]


async def test_what_does_not_concern_a_resting_device_does_not_wake_it(
    tmp_path: Path, log_book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(monkeypatch)
    async with open_resting(tmp_path, log_book) as (fleet, device):
        other = await fleet.add_device()
        await fleet.until_linked(other, "point")
        await fleet.server.add_group("/emea/paris")
        await fleet.release(group="/emea/paris")
        release = await fleet.release("2.0", sequence=2, group="/emea/berlin")
        await fleet.until_reported(release)
        woken = {endpoint.host for _, endpoints in wire.sent for endpoint in endpoints}
        assert woken == {device.host}
        assert rises(fleet, device) == [True], "once, for the second"


async def test_lost_wakes_are_repeated_until_the_device_comes_and_no_longer(
    tmp_path: Path, log_book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(monkeypatch, lost=2)
    async with open_resting(tmp_path, log_book) as (fleet, device):
        release = await fleet.release()
        await fleet.until_reported(release)
        await rests(fleet, device, 2)
        assert len({datagram for datagram, _ in wire.sent}) == 1
        assert 3 <= len(wire.sent) <= 4
        assert rises(fleet, device) == [True]


async def test_forged_and_replayed_wakes_are_refused_also_after_a_restart(
    tmp_path: Path, log_book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(monkeypatch)
    async with open_resting(tmp_path, log_book) as (fleet, device):
        await fleet.until_reported(await fleet.release())
        await rests(fleet, device, 2)
        for change in (None, DATAGRAM_BYTES - 1):
            before = device.agent.resting.refused
            count = wire.again(change)
            await fleet.until(
                lambda before=before, count=count: device.agent.resting.refused >= before + count,
                "they were refused",
            )
        await device.program.stop()
        await device.program.start()
        await rests(fleet, device, 3)
        port = device.agent.resting.place().port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(wire.sent[0][0], (device.host, port))
        await fleet.until(lambda: device.agent.resting.refused == 1, "it was refused")
        assert rises(fleet, device) == [True]


async def test_an_admin_server_that_was_restarted_wakes_those_who_rested_before(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_resting(tmp_path, log_book) as (fleet, device):
        await fleet.server.stop()
        await fleet.server.start()
        release = await fleet.release()
        await fleet.until_installed(release)
        assert rises(fleet, device) == [True]


async def test_a_machine_that_does_not_come_gets_magic_packets_and_is_sent_back_to_sleep_after_the_task(
    tmp_path: Path, log_book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = tmp_path / "asleep"
    magic: list[str] = []
    Wire(monkeypatch, lost=2)
    card = Interface(mac="02:00:00:00:00:07", addresses=[])
    monkeypatch.setattr(resting, "read_interfaces", lambda: [card])
    monkeypatch.setattr(waking, "send_magic", lambda sender, macs, near: magic.extend(macs))
    table = RestingTable(enabled=True, after_s=0.5, sleep=["touch", str(asleep)])
    async with open_resting(tmp_path, log_book, table=table) as (fleet, device):
        assert not asleep.exists(), "it was not woken, so it is not sent to sleep"
        await fleet.until_reported(await fleet.release())
        await fleet.until(asleep.exists, "the command to sleep has run")
        assert set(magic) == {"02:00:00:00:00:07"}
        assert fleet.log.find("device.woken", who=device.name, from_sleep=True)


async def test_a_device_that_cannot_listen_for_wakes_keeps_its_link(
    tmp_path: Path, log_book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def taken(*arguments: object) -> Any:
        raise Unavailable("UDP port 7604 is taken")
        yield

    monkeypatch.setattr(resting, "open_wake_socket", taken)
    async with open_fleet(tmp_path, log_book, devices=0) as fleet:
        device = await fleet.add_device(resting=RESTING)
        await fleet.until_logged("wakes.off", who=device)
        await fleet.until_installed(await fleet.release())
        assert not fleet.log.find("device.rests")
