"""Gateways: envelopes that wait on them while somebody is away, and gateways that stand in a row."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from fleet_links import link_as, say
from fleet_logs import LogBook
from fleet_processes import Processes
from harness import GROUP, Fleet, Node, open_fleet

from p2pdist.errors import P2PDistError
from p2pdist.ids import NodeId

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset

GATEWAY = ("seed", "gateway")


async def heard_of(fleet: Fleet, node: Node) -> int:
    return len(await fleet.refusals(who=node, kind="stranger"))


async def test_what_devices_say_while_the_admin_server_is_away_waits_on_a_gateway_that_is_killed(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=0, form=Processes(log_book)) as fleet:
        (point,) = fleet.points
        device = await fleet.add_device(start=False)
        await fleet.server.kill()
        names = [f"refusal {number}" for number in range(50)]
        async with link_as(device, point.address) as link:
            await say(device, link, names)
        await point.program.kill()
        await fleet.server.start()
        assert await heard_of(fleet, device) == 0
        await point.program.start()

        async def all_heard() -> bool:
            return await heard_of(fleet, device) == len(names)

        await fleet.until(all_heard, "the admin server has everything")


async def in_a_row(fleet: Fleet) -> tuple[Node, Node]:
    """Two gateways, the second through the first."""
    upper = await fleet.add_point(scope="/emea", duties=GATEWAY)
    await fleet.publish()
    lower = await fleet.add_point(scope=GROUP, duties=GATEWAY)
    await fleet.publish()
    await fleet.until_linked(lower, "point")
    return upper, lower


async def test_devices_behind_two_gateways_in_a_row_install_and_report(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        upper, lower = await in_a_row(fleet)
        device = await fleet.add_device()
        await fleet.until_linked(device, "point")
        release = await fleet.release()
        await fleet.until_reported(release)
        attached = fleet.server.service.plane.attached()  # type: ignore[attr-defined]  # it is a task here
        assert attached == {upper.node: None, lower.node: upper.node, device.node: lower.node}
        assert log_book.find("link.up", who=device.name)[-1]["upstream"] == lower.node

        async def over_the_wan() -> bool:
            return (await fleet.received(release))["point", "origin"] > 0

        await fleet.until(over_the_wan, "the points say that the origin sent it")


async def test_when_the_upper_of_two_gateways_is_gone_the_lower_one_finds_another_way(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        upper, lower = await in_a_row(fleet)
        device = await fleet.add_device()
        await fleet.until_linked(device, "point")
        await upper.program.stop()
        await fleet.until_linked(lower, "server")
        release = await fleet.release()
        await fleet.until_reported(release)
        await upper.program.start()
        await fleet.until_linked(lower, "point")
        plane = fleet.server.service.plane  # type: ignore[attr-defined]  # it is a task here
        expected: dict[NodeId, NodeId | None] = {
            upper.node: None, lower.node: upper.node, device.node: lower.node
        }  # fmt: skip
        await fleet.until(lambda: plane.attached() == expected, "everybody is below everybody again")


async def test_a_gateway_does_not_carry_the_one_that_carries_it_and_says_why(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        upper, lower = await in_a_row(fleet)
        loop = f"a loop of gateways: {upper.node} → {lower.node} → {upper.node}"

        async def use() -> None:
            async with link_as(upper, lower.address) as link:
                async for _ in link.frames():
                    pass

        with pytest.raises(P2PDistError, match=loop), trio.fail_after(20):
            await use()
