"""A distribution point with a grant that takes what comes and does nothing with it: nothing is lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_programs import ServerTask
from harness import Fleet, Node
from lying_point import LyingPoint, behind_a_liar, honest, until_refusals

from p2pdist import limits
from p2pdist.core import upstream
from p2pdist.ids import NodeId
from p2pdist.node import diligence
from p2pdist.server.control.plane import ControlPlane
from p2pdist.wire.frames import Candidate, Sources
from p2pdist.wire.messages import SessionInvite
from p2pdist.wire.services import Echo

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds instead of minutes until a point is left."""
    monkeypatch.setattr(limits, "RECEIPT_PATIENCE_S", 2.0)
    monkeypatch.setattr(upstream, "SHUNNED_FIRST_S", 3.0)
    monkeypatch.setattr(upstream, "SERVER_DELAY_S", 0.5)
    monkeypatch.setattr(upstream, "BETTER_EVERY_S", 1.0)
    monkeypatch.setattr(diligence, "_LOOK_S", 0.25)


async def left(fleet: Fleet, device: Node, liar: LyingPoint, reason: str) -> None:
    """Wait until a device has left the point, has said why, and is linked to the admin server."""
    await fleet.until(
        lambda: any(
            line["upstream"] == liar.node and reason in line["reason"]
            for line in fleet.log.find("link.left", who=device.name)
        ),
        f"{device.name} leaves the point: {reason}",
    )
    await fleet.until_linked(device, "server")


async def test_a_point_that_gives_no_receipts_is_left_and_what_it_swallowed_arrives_all_the_same(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with behind_a_liar(tmp_path, log_book) as (fleet, device, liar):
        liar.up = lambda frame: []
        for number in range(20):
            await device.agent.refuse("stranger", f"198.51.100.{number}", "a test")
        await left(fleet, device, liar, "no receipts")

        assert {record.times for record in await until_refusals(fleet, device, 20)} == {1}


async def test_a_point_that_gives_receipts_and_passes_nothing_on_is_left_and_nothing_is_lost(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with behind_a_liar(tmp_path, log_book) as (fleet, device, liar):
        liar.receipts, liar.up = True, lambda frame: []
        await device.agent.refuse("stranger", "198.51.100.7", "a test")
        await left(fleet, device, liar, "no answer")
        await until_refusals(fleet, device, 1)


async def test_what_a_point_drops_on_its_way_down_reaches_the_device_once_it_has_moved(
    tmp_path: Path, log_book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind_a_liar(tmp_path, log_book) as (fleet, device, liar):
        liar.receipts, liar.down = True, lambda frame: []
        came = expected_sessions(device, monkeypatch)
        plane = await plane_behind(fleet, device, liar)
        invites = [f"{number:032x}" for number in range(5)]
        for session in invites:
            assert await plane.tell(device.node, invitation(session))
        await fleet.until(lambda: len(liar.passed) >= len(invites), "the point has them")
        assert came == []
        device.agent.member.uplink.leave("a test")
        await fleet.until_linked(device, "server")
        await fleet.until(lambda: len(came) == len(invites), "the device has them")
        assert came == invites


async def test_what_waits_on_a_point_that_its_device_has_left_is_not_opened_twice_when_it_comes_late(
    tmp_path: Path, log_book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with behind_a_liar(tmp_path, log_book) as (fleet, device, liar):
        liar.receipts, liar.down = True, lambda frame: []
        came = expected_sessions(device, monkeypatch)
        plane = await plane_behind(fleet, device, liar)
        assert await plane.tell(device.node, invitation("a" * 32))
        await fleet.until(lambda: bool(liar.passed), "the point has it")
        device.agent.member.uplink.leave("a test")
        await fleet.until(lambda: came == ["a" * 32], "the device has it")
        await fleet.until_linked(device, "point")  # again, after a while
        for frame in [f for f in reversed(liar.passed) if f.envelope.recipient == device.node]:
            await liar.send_down(frame)
        liar.down = honest
        assert await plane.tell(device.node, invitation("b" * 32))
        await fleet.until(lambda: came[-1] == "b" * 32, "what was sent after them is there")
        assert came == ["a" * 32, "b" * 32]


async def test_a_point_that_names_sources_where_nobody_is_is_left_and_the_artifact_comes_from_the_origin(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with behind_a_liar(tmp_path, log_book) as (fleet, device, liar):
        liar.receipts = True
        release = await fleet.release()
        await fleet.until(lambda: device.agent.member.content.unfinished(), "it is being fetched")
        for node, role in ((liar.node, "point"), (fleet.bundle.server_node, "origin")):
            nowhere = Candidate(
                node=NodeId(node), role=role, host="127.0.0.2", port=9, taken=True, reason="a lie"
            )  # type: ignore[arg-type]  # one of two roles
            await liar.send_down(Sources(info_hash=release.info_hash, candidates=[nowhere]))
        await left(fleet, device, liar, "no source")
        await fleet.until_reported(release)


async def plane_behind(fleet: Fleet, device: Node, liar: LyingPoint) -> ControlPlane:
    """The admin server's control plane, once it reaches a device through the point."""
    assert isinstance(fleet.server, ServerTask)
    plane = fleet.server.service.plane
    await fleet.until(lambda: plane.attached().get(device.node) == liar.node, "it is behind the point")
    return plane


def expected_sessions(device: Node, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sessions that a device was invited to, in the order in which it heard of them."""
    came: list[str] = []
    reception = device.agent.member.reception
    monkeypatch.setattr(reception, "expect", lambda invite: came.append(invite.session))
    return came


def invitation(session: str) -> SessionInvite:
    return SessionInvite(
        session=session,
        initiator="i".ljust(32, "a"),
        authority=b"pem",
        by="a test",
        expires=int(time.time()) + 600,
        service=Echo(),
    )
