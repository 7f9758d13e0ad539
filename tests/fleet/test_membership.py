"""Who belongs to the fleet: tokens, clones, revocation, and certificates that ran out."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trio
from fleet_links import link_as
from fleet_logs import LogBook
from harness import GROUP, PATIENCE_S, Fleet, Node, open_fleet

from p2pdist.errors import P2PDistError, TrustError
from p2pdist.net.link import Link
from p2pdist.node.enrol import enrol, renew_expired
from p2pdist.node.home import Home
from p2pdist.node.mail import Mail
from p2pdist.store import devices
from p2pdist.wire.frames import Announce, AnyFrame, Presence, Sources

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset


async def test_a_token_that_is_used_up_admits_nobody_else(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        token = await fleet.server.make_token(GROUP, uses=1)
        await enrol(tmp_path / "first", fleet.bundle, token, machine="m1")
        with pytest.raises(TrustError, match="has been used once"):
            await enrol(tmp_path / "second", fleet.bundle, token, machine="m2")
        assert not (tmp_path / "second" / "certificate.pem").exists()


async def test_a_token_that_is_late_admits_nobody(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        token = await fleet.server.make_token(GROUP, life_s=-60)
        with pytest.raises(TrustError, match="expired"):
            await enrol(tmp_path / "late", fleet.bundle, token, machine="m1")


async def test_a_token_that_nobody_made_admits_nobody(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        with pytest.raises(TrustError, match="not one of this fleet"):
            await enrol(tmp_path / "guess", fleet.bundle, "guessed", machine="m1")


async def test_a_cloned_machine_is_refused_and_the_attempt_is_kept(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=1) as fleet:
        (device,) = fleet.devices
        clone = tmp_path / "clone"
        clone.mkdir()
        shutil.copy(device.home / "identity.key", clone / "identity.key")
        token = await fleet.server.make_token(GROUP)
        with pytest.raises(TrustError, match="cloned"):
            await enrol(clone, fleet.bundle, token, machine="another machine")
        assert (await fleet.device(device)).clones == 1
        assert len(await fleet.store.read(devices.list_clones, device.node)) == 1


async def test_a_device_that_enrols_again_on_the_same_machine_stays_the_same_device(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        token = await fleet.server.make_token(GROUP, uses=2)
        first = await enrol(tmp_path / "device", fleet.bundle, token, machine="m1")
        (tmp_path / "device" / "certificate.pem").unlink()
        again = await enrol(tmp_path / "device", fleet.bundle, token, machine="m1")
        assert again.node == first.node
        assert len(await fleet.store.read(devices.list_devices)) == 1


async def _was_seen(fleet: Fleet, device: Node) -> bool:
    return (await fleet.device(device)).last_seen is not None


@pytest.mark.parametrize("points", [0, 1], ids=["attached to the server", "behind a point"])
async def test_a_revoked_device_stops_and_says_why(tmp_path: Path, log_book: LogBook, points: int) -> None:
    async with open_fleet(tmp_path, log_book, points=points, devices=1) as fleet:
        (device,) = fleet.devices
        await fleet.until(partial(_was_seen, fleet, device), "the admin server hears the device")
        await fleet.server.revoke(device.node, "it was stolen")
        await fleet.until(lambda: not device.program.running, "the device stops")
        assert "it was stolen" in device.program.error


async def test_a_revoked_device_gets_no_new_certificate(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=1) as fleet:
        (device,) = fleet.devices
        await device.program.stop()
        await fleet.server.revoke(device.node, "it was stolen")
        home = Home.open(device.home)
        before = home.certificate_pem
        with pytest.raises(TrustError, match="it was stolen"):
            await renew_expired(home, Mail(home), now=_now())
        assert home.certificate_pem == before


async def test_a_revoked_device_gets_no_link_to_the_server_any_more(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=1) as fleet:
        (device,) = fleet.devices
        await device.program.stop()
        await fleet.server.revoke(device.node, "it was stolen")
        await device.program.start()
        await fleet.until_logged("link.failed", who=device)
        assert not device.agent.member.uplink.link


async def test_a_point_cuts_a_revoked_device_off_and_names_it_to_nobody(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        revoked, other = fleet.devices
        (point,) = fleet.points
        for device in fleet.devices:
            await device.program.stop()
        async with link_as(revoked, point.address) as link, link_as(other, point.address) as asking:
            frames = asking.frames()
            await link.send(presence(complete=True))
            await asking.send(presence(complete=False))
            while revoked.node not in await sources(frames):
                pass  # its own announcement is still on its way
            await fleet.server.revoke(revoked.node, "it was stolen")
            assert "has revoked" in await end_of(link)
            await asking.send(presence(complete=False))
            assert revoked.node not in await sources(frames)
        await fleet.server.stop()
        for _ in range(2):
            assert "not a member of this fleet any more" in await refusal(revoked, point)
            await point.program.stop()
            await point.program.start()
        assert log_book.find("member.revoked", who=point.name, node=revoked.node)


async def test_a_point_that_was_away_learns_of_a_revocation_when_it_is_back(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (revoked,), (point,) = fleet.devices, fleet.points
        await revoked.program.stop()
        await point.program.stop()
        await fleet.server.revoke(revoked.node, "it was stolen")
        await point.program.start()

        async def refused() -> bool:
            why = await refusal(revoked, point)
            return "has revoked" in why or "not a member" in why

        await fleet.until(refused, "the point refuses the revoked device")


def presence(*, complete: bool) -> Announce:
    """What a device says that has an artifact, or wants it."""
    artifact = Presence(info_hash="ab" * 32, have=8 if complete else 0, pieces=8, complete=complete)
    return Announce(role="device", port=7_000, artifacts=[artifact])


async def sources(frames: AsyncIterator[AnyFrame]) -> set[str]:
    """The nodes that a device is told of next."""
    with trio.fail_after(PATIENCE_S):
        async for frame in frames:
            if isinstance(frame, Sources):
                return {candidate.node for candidate in frame.candidates}
    raise AssertionError("the link ended")


async def refusal(node: Node, point: Node) -> str:
    """Why a point ends the link of a node."""
    try:
        async with link_as(node, point.address) as link:
            return await end_of(link)
    except P2PDistError as error:
        return str(error)


async def end_of(link: Link) -> str:
    """Why a link ended."""
    with trio.fail_after(PATIENCE_S):
        try:
            async for _ in link.frames():
                pass
        except P2PDistError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("points", [0, 1], ids=["attached to the server", "behind a point"])
async def test_a_device_whose_certificate_ran_out_while_it_was_off_renews_it_and_goes_on(
    tmp_path: Path, log_book: LogBook, points: int
) -> None:
    async with open_fleet(tmp_path, log_book, points=points, devices=1) as fleet:
        (device,) = fleet.devices
        await device.program.stop()
        let_certificate_run_out(fleet, device)
        await device.program.start()
        release = await fleet.release()
        await fleet.until_reported(release)
        assert fleet.log.find("certificate.expired", who=device.name)


async def test_a_point_whose_certificate_ran_out_while_it_was_off_renews_it_and_serves_again(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=0) as fleet:
        (point,) = fleet.points
        await point.program.stop()
        let_certificate_run_out(fleet, point)
        await point.program.start()
        await fleet.until_linked(point, "server")
        device = await fleet.add_device()
        await fleet.until_linked(device, "point")


async def test_a_new_swarm_costs_each_device_one_new_certificate(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        await fleet.until_reported(await fleet.release())
        await fleet.until_reported(await fleet.release("2.0", sequence=2))
        assert [len(fleet.log.find("certificate.renewed", who=d.name)) for d in fleet.devices] == [1, 1]


def let_certificate_run_out(fleet: Fleet, node: Node) -> None:
    """Give a node a certificate as it had it two days ago."""
    home = Home.open(node.home)
    pem = fleet.server_home.authority.issue(
        home.key.public,
        group=home.certificate.group,
        swarms=home.certificate.swarms,
        life_s=24 * 3_600,
        now=datetime.now(UTC) - timedelta(days=2),
    )
    (node.home / "certificate.pem").write_bytes(pem)


def _now() -> int:
    return int(datetime.now(UTC).timestamp())
