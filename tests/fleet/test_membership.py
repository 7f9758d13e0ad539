"""Who belongs to the fleet: tokens, clones, revocation, and certificates that ran out."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fleet_links import link_as, sealed_report
from fleet_logs import LogBook
from harness import GROUP, Fleet, Node, open_fleet

from p2pdist.errors import TrustError
from p2pdist.node.enrol import enrol, renew_expired
from p2pdist.node.home import Home
from p2pdist.node.mail import Mail
from p2pdist.store import devices

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


@pytest.mark.parametrize("points", [0, 1], ids=["attached to the server", "behind a point"])
async def test_a_revoked_device_stops_and_says_why(tmp_path: Path, log_book: LogBook, points: int) -> None:
    async with open_fleet(tmp_path, log_book, points=points, devices=1) as fleet:
        (device,) = fleet.devices
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


async def test_what_a_revoked_device_sends_through_its_point_does_not_end_the_points_link(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        revoked, other = fleet.devices
        await revoked.program.stop()
        await fleet.server.revoke(revoked.node, "it was stolen")
        async with link_as(revoked, fleet.points[0].address) as link:
            await link.send(await sealed_report(revoked))
            release = await fleet.release()
            await fleet.until_reported(release, nodes=[other])
        assert not fleet.log.find("link.down", who=fleet.points[0].name)


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
