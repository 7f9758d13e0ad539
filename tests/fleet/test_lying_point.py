"""What a distribution point can do with what passes through it: delay it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from fleet_links import link_as, sealed_report
from fleet_logs import LogBook
from fleet_programs import DEVICES
from harness import Node, open_fleet
from lying_point import behind_a_liar, until_refusals

from p2pdist.node.home import Home, load_desired
from p2pdist.wire.frames import Routed

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset


def altered(frame: Routed) -> Sequence[Routed]:
    box = bytearray(frame.envelope.box)
    box[len(box) // 2] ^= 1
    return [Routed(envelope=msgspec.structs.replace(frame.envelope, box=bytes(box)))]


async def test_an_envelope_altered_on_its_way_down_is_refused_by_the_device_and_not_obeyed(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with behind_a_liar(tmp_path, log_book) as (fleet, device, liar):
        before = load_desired(Home.open(device.home))
        liar.down = altered
        await fleet.release()

        async def refused() -> bool:
            return bool(await fleet.refusals(who=device, kind="envelope"))

        await fleet.until(refused, "the device refuses the envelope, and says so through the point")
        assert load_desired(Home.open(device.home)) == before


async def test_an_envelope_altered_on_its_way_up_is_refused_by_the_server(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with behind_a_liar(tmp_path, log_book) as (fleet, device, liar):
        liar.up = altered
        device.agent.member.heartbeat_soon()
        await fleet.until_logged("envelope.refused", node=device.node, by=liar.node)
        liar.up = lambda frame: [frame]
        await fleet.release()
        await fleet.until(lambda: device.agent.deployer.tasks(), "an honest way works again")


async def test_an_old_order_repeated_by_the_point_changes_nothing_on_the_device(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with behind_a_liar(tmp_path, log_book) as (fleet, device, liar):
        release = fleet.signing.release("1.0", sequence=1)
        await fleet.publish()
        deployment = await fleet.server.deploy(release.target, DEVICES)
        await fleet.until(lambda: ordered(device) == [deployment], "the order is there")
        old = [frame for frame in liar.passed if frame.envelope.recipient == device.node]
        await fleet.server.stop_deployment(deployment)
        await fleet.until(lambda: ordered(device) == [], "the order is withdrawn")
        await device.program.stop()  # so that not even the window of seen counters helps it
        await device.program.start()
        await fleet.until_linked(device, "point")
        for frame in old:
            await liar.send_down(frame)
        later = fleet.signing.release("1.0", sequence=1, product="other", place="/opt/other.bin")
        await fleet.publish()
        marker = await fleet.server.deploy(later.target, DEVICES)
        await fleet.until(lambda: marker in ordered(device), "what was sent after it is there")
        assert ordered(device) == [marker]


async def test_a_report_repeated_by_the_point_is_stored_once(tmp_path: Path, log_book: LogBook) -> None:
    async with behind_a_liar(tmp_path, log_book) as (fleet, device, liar):
        liar.up = lambda frame: [frame] * 3
        await device.agent.refuse("stranger", "198.51.100.7", "a test")
        await device.agent.refuse("stranger", "198.51.100.8", "what is sent after it")
        assert [record.times for record in await until_refusals(fleet, device, 2)] == [1, 1]


async def test_an_envelope_forged_in_a_devices_name_does_not_reroute_what_the_server_sends_it(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (device,) = fleet.devices
        forger = await fleet.add_device(start=False)
        envelope = (await sealed_report(forger)).envelope
        forged = msgspec.structs.replace(envelope, sender=device.node)
        async with link_as(forger, fleet.bundle.addresses[0]) as link:
            await link.send(Routed(envelope=forged))
            await fleet.until_logged("envelope.refused", node=device.node)
            release = await fleet.release()
            await fleet.until_reported(release, nodes=[device])
            frames = link.frames()
            await link.aclose()
            stolen = [f for f in [f async for f in frames] if isinstance(f, Routed)]
            assert device.node not in {frame.envelope.recipient for frame in stolen}


def ordered(device: Node) -> list[str]:
    """The deployments that a device has been told of."""
    desired = load_desired(Home.open(device.home))
    return [deployment.id for deployment in desired.deployments] if desired is not None else []
