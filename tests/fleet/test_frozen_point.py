"""A distribution point that is there and does not move: frozen, overloaded, or cut off from its devices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_processes import Processes, ProcessProgram
from fleet_programs import ServerOptions
from harness import Node, open_fleet

pytestmark = pytest.mark.slow  # real programs, and seconds of silence

SLOW_SITE = ServerOptions(point_up_bytes_per_s=500_000)
SIZE = 3_000_000
GATEWAY_LOST_S = 10.0
FAILOVER_S = 15.0  # half of what an idle link would take, and room for a loaded machine


@contextmanager
def frozen(node: Node) -> Iterator[None]:
    """Freeze a node's process for as long as the block runs."""
    assert isinstance(node.program, ProcessProgram)
    node.program.freeze()
    try:
        yield
    finally:
        node.program.thaw()


async def test_a_device_whose_point_freezes_goes_on_through_the_other_within_seconds_and_keeps_its_bytes(
    tmp_path: Path, log_book: LogBook
) -> None:
    form = Processes(log_book)
    async with open_fleet(tmp_path, log_book, points=2, devices=1, form=form, options=SLOW_SITE) as fleet:
        (device,) = fleet.devices
        release = await fleet.release(size=SIZE)
        for point in fleet.points:
            await fleet.until(lambda point=point: point.has_artifact(release), f"{point.name} has all of it")
        await fleet.until(lambda: device.held_bytes(release) > SIZE // 8, "the device has a part")
        lost = fleet.carrier(device)
        assert lost is not None
        (other,) = [point for point in fleet.points if point is not lost]
        held = device.held_bytes(release)
        assert held < SIZE, "it is in the middle"
        with frozen(lost):
            await fleet.until(
                lambda: fleet.carrier(device) is other, "the other point carries it", patience_s=FAILOVER_S
            )
            assert device.held_bytes(release) >= held
            await fleet.until_reported(release)
        received = await fleet.received(release)
        assert received["device", "point"] < SIZE * 1.2
        assert received["device", "origin"] == 0


async def test_a_gateway_that_freezes_costs_its_idle_devices_ten_seconds_and_no_message_though_it_is_dialled(
    tmp_path: Path, log_book: LogBook
) -> None:
    form = Processes(log_book)
    async with open_fleet(tmp_path, log_book, points=0, devices=0, form=form) as fleet:
        for _ in range(2):
            point = await fleet.add_point(duties=("seed", "gateway"), dialled=True)
            await fleet.publish()
            await fleet.until_logged("link.up", who=point, dialled=True)
        device = await fleet.add_device()
        await fleet.until_linked(device, "point")
        lost = fleet.carrier(device)
        assert lost is not None
        (other,) = [point for point in fleet.points if point is not lost]
        with frozen(lost):
            release = await fleet.release()  # the server still sends it to the one that is frozen
            await fleet.until(
                lambda: fleet.carrier(device) is other,
                "the other gateway carries it",
                patience_s=GATEWAY_LOST_S,
            )
            await fleet.until_reported(release)
