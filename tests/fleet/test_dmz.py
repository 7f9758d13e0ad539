"""Gateways in a DMZ: they dial nobody, the admin server or the gateway above dials them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fleet_links import link_as, say
from fleet_logs import LogBook
from fleet_programs import ServerTask
from harness import GROUP, Fleet, Node, open_fleet

from p2pdist.ids import NodeId
from p2pdist.node.home import Home

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset

GATEWAY = ("seed", "gateway")


async def in_the_zone(fleet: Fleet, *, scope: str = "/emea") -> Node:
    """A gateway that is dialled, once it is carried and knows of its grant."""
    point = await fleet.add_point(scope=scope, duties=GATEWAY, dialled=True)
    await fleet.publish()
    await fleet.until_logged("link.up", who=point, dialled=True)
    await fleet.until(lambda: point.agent.member.metadata.catalog, "it has metadata")
    return point


def attached(fleet: Fleet) -> dict[NodeId, NodeId | None]:
    assert isinstance(fleet.server, ServerTask)
    return dict(fleet.server.service.plane.attached())


async def test_devices_behind_a_gateway_that_is_dialled_install_and_report(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        point = await in_the_zone(fleet)
        devices = [await fleet.add_device() for _ in range(2)]
        for device in devices:
            await fleet.until_linked(device, "point")
        release = await fleet.release()
        await fleet.until_reported(release)
        assert attached(fleet) == {point.node: None, **dict.fromkeys([d.node for d in devices], point.node)}

        async def over_the_wan_once() -> bool:
            received = await fleet.received(release)
            return received["point", "origin"] == len(release.content) and not received["device", "origin"]

        await fleet.until(over_the_wan_once, "only the point has it from the origin")
        assert not log_book.find("link.failed", who=point.name)


async def test_a_gateway_that_is_dialled_is_carried_again_after_its_restart_and_the_servers(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        point = await in_the_zone(fleet)
        device = await fleet.add_device()
        await fleet.until_linked(device, "point")
        everybody = {point.node: None, device.node: point.node}
        for program in (fleet.server, point.program):
            await program.stop()
            await program.start()
            await fleet.until(lambda: attached(fleet) == everybody, "everybody is back", patience_s=10)
        release = await fleet.release()
        await fleet.until_reported(release)


async def test_a_gateway_learns_from_its_grant_that_it_is_dialled(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        point = await fleet.add_point(duties=GATEWAY)
        await fleet.publish()
        await fleet.until_logged("link.up", who=point, dialled=False)
        fleet.signing.grant(point.node, [point.address], duties=list(GATEWAY), dialled=True)
        await fleet.publish()
        await fleet.until_logged("link.up", who=point, dialled=True)
        await fleet.until(lambda: attached(fleet) == {point.node: None}, "it is carried")


async def test_a_gateway_above_dials_the_one_below_it_and_the_server_stands_in_for_it(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        upper = await fleet.add_point(scope="/emea", duties=GATEWAY)
        await fleet.publish()
        await fleet.until_linked(upper, "server")
        lower = await fleet.add_point(scope=GROUP, duties=GATEWAY, dialled=True)
        await fleet.publish()
        await fleet.until_linked(lower, "point")
        device = await fleet.add_device()
        await fleet.until_linked(device, "point")
        in_a_row: dict[NodeId, NodeId | None] = {
            upper.node: None, lower.node: upper.node, device.node: lower.node
        }  # fmt: skip
        await fleet.until(lambda: attached(fleet) == in_a_row, "they stand in a row")
        first = await fleet.release()
        await fleet.until_reported(first)

        await upper.program.stop()
        without: dict[NodeId, NodeId | None] = {lower.node: None, device.node: lower.node}
        await fleet.until(lambda: attached(fleet) == without, "the server stands in", patience_s=10)
        second = await fleet.release("1.1", sequence=2)
        await fleet.until_reported(second)

        await upper.program.start()
        await fleet.until(lambda: attached(fleet) == in_a_row, "they stand in a row again")
        assert not log_book.find("link.up", who=lower.name, dialled=False)


async def test_of_three_gateways_in_a_row_the_one_in_the_middle_is_dialled_from_both_sides(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        top = await fleet.add_point(scope="/", duties=GATEWAY)
        middle = await in_the_zone(fleet, scope="/emea")
        await fleet.until_linked(middle, "point")
        bottom = await fleet.add_point(scope=GROUP, duties=GATEWAY)
        await fleet.publish()
        await fleet.until_linked(bottom, "point")
        device = await fleet.add_device()
        await fleet.until_linked(device, "point")
        release = await fleet.release()
        await fleet.until_reported(release)
        assert attached(fleet) == {
            top.node: None, middle.node: top.node, bottom.node: middle.node, device.node: bottom.node
        }  # fmt: skip
        assert not log_book.find("link.up", who=middle.name, dialled=False)

        async def once_over_the_wan() -> bool:
            received = await fleet.received(release)
            return received["point", "origin"] == len(release.content) and not received["device", "origin"]

        await fleet.until(once_over_the_wan, "each passes it on to the next")


async def test_a_certificate_that_ran_out_in_the_zone_is_replaced_by_whoever_dials(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        point = await in_the_zone(fleet)
        await point.program.stop()
        let_expire(fleet, point)
        await point.program.start()
        await fleet.until_logged("call.renewed", node=point.node)
        await fleet.until(lambda: attached(fleet) == {point.node: None}, "it is carried")


async def test_a_gateway_above_has_a_certificate_replaced_that_ran_out_below(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        await fleet.add_point(scope="/emea", duties=GATEWAY)
        lower = await fleet.add_point(scope=GROUP, duties=GATEWAY, dialled=True)
        await fleet.publish()
        await fleet.until_linked(lower, "point")
        await lower.program.stop()
        let_expire(fleet, lower)
        await lower.program.start()
        await fleet.until_logged("call.renewed", node=lower.node)
        await fleet.until_linked(lower, "point")


def let_expire(fleet: Fleet, node: Node) -> None:
    """Give a node a certificate that ran out yesterday."""
    home = Home.open(node.home)
    day = timedelta(days=1)
    pem = fleet.server_home.authority.issue(
        home.key.public, group=home.certificate.group, swarms=[], life_s=3_600, now=datetime.now(UTC) - day
    )
    (node.home / "certificate.pem").write_bytes(pem)


async def test_a_revoked_gateway_is_not_dialled_any_more(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        point = await in_the_zone(fleet)
        await fleet.server.revoke(point.node, "lost")
        await fleet.until(lambda: point.program.error, "it has ended")
        await point.program.start()
        assert isinstance(fleet.server, ServerTask)
        calls = fleet.server.service.plane.callees.calls
        await fleet.until(lambda: calls()[point.node].state != "linked", "the link is gone")
        assert attached(fleet) == {}


async def test_what_devices_say_while_the_admin_server_is_away_waits_on_a_gateway_that_is_dialled(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        point = await in_the_zone(fleet)
        device = await fleet.add_device(start=False)
        await fleet.server.stop()
        names = [f"refusal {number}" for number in range(50)]
        async with link_as(device, point.address) as link:
            await say(device, link, names)
        await point.program.stop()
        await point.program.start()
        await fleet.server.start()

        async def all_heard() -> bool:
            return len(await fleet.refusals(who=device, kind="stranger")) == len(names)

        await fleet.until(all_heard, "the admin server has everything", patience_s=10)
