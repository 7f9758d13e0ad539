"""What happens to a server: clocks that go back, disks that fill up, certificates that run out."""

from __future__ import annotations

import errno
import io
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from serverkit import PATIENCE_S, Operator, Publisher, TestDevice, enrolled_device, found, open_fleet

from p2pdist.server import service as service_module
from p2pdist.server import uploads
from p2pdist.server.apicertificate import ApiCertificate
from p2pdist.server.control import clones
from p2pdist.trust.certificates import parse_certificate
from p2pdist.wire import api as wire
from p2pdist.wire.requests import Bundle, BundleRequest

pytestmark = pytest.mark.slow  # a whole server: not in the fast subset

DATA = bytes(range(256)) * 20_000
START = datetime(2026, 1, 1, tzinfo=UTC)


async def test_a_clock_set_back_is_named_and_what_was_signed_is_served_until_it_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    async with open_fleet(tmp_path, publisher) as fleet:
        await fleet.operator.publish(publisher)
        device = await enrolled_device(fleet)
        with monkeypatch.context() as patch:
            patch.setattr(service_module, "_utc_now", lambda: datetime.now(UTC) - timedelta(days=3))
            await fleet.service._keep_metadata()
            status = await fleet.operator.ask("GET", "/status", wire.Status)
            assert any("clock went back" in problem for problem in status.problems)
            async with device.attached() as link:
                bundle = await link.request("/bundle", BundleRequest(have={}), Bundle)
            assert "timestamp.json" in bundle.files and status.releases == 1
        await fleet.service._keep_metadata()
        assert (await fleet.operator.ask("GET", "/status", wire.Status)).problems == []


async def test_a_server_that_starts_with_a_clock_set_back_serves_metadata_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    async with open_fleet(tmp_path, publisher) as fleet:
        await fleet.operator.publish(publisher)
        device = await enrolled_device(fleet)
    with monkeypatch.context() as patch:
        patch.setattr(service_module, "_utc_now", lambda: datetime.now(UTC) - timedelta(days=3))
        async with open_fleet(tmp_path, publisher) as fleet:
            assert "clock went back" in fleet.service.trouble
            patch.undo()
            device.fleet = fleet
            async with device.attached() as link:
                bundle = await link.request("/bundle", BundleRequest(have={}), Bundle)
                assert "timestamp.json" in bundle.files
            await fleet.service._keep_metadata()
            assert fleet.service.trouble == "" and fleet.service.catalog is not None


def test_the_certificate_of_the_api_is_renewed_at_half_its_life(tmp_path: Path) -> None:
    now = START
    certificate = ApiCertificate(
        found(tmp_path, Publisher(tmp_path / "signed")), ["admin.example"], 3_600, clock=lambda: now
    )
    first = certificate.identity()
    now = START + timedelta(seconds=1_799)
    assert certificate.identity() == first
    now = START + timedelta(seconds=1_801)
    second = parse_certificate(certificate.identity().certificate_pem)
    assert second.not_after == START + timedelta(seconds=1_801 + 3_600)
    assert "admin.example" in second.hosts and certificate.identity() != first


async def test_a_connection_after_the_renewal_sees_the_new_certificate(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        context = ssl.create_default_context(cadata=fleet.ca_pem.decode())

        async def serial() -> str:
            stream = await trio.open_ssl_over_tcp_stream(*fleet.api, ssl_context=context)
            await stream.do_handshake()
            shown = stream.getpeercert()
            await trio.aclose_forcefully(stream)
            return str(shown["serialNumber"])

        first = await serial()
        assert await serial() == first
        fleet.api_certificate._renew = datetime.now(UTC)
        assert await serial() != first


class FullDisk(io.FileIO):
    """A file on a disk that has room for so many bytes more."""

    room = 2_500_000

    def write(self, data: object) -> int:
        view = memoryview(data)[: FullDisk.room]  # type: ignore[arg-type]  # bytes, as everywhere here
        if not view:
            raise OSError(errno.ENOSPC, "No space left on device")
        FullDisk.room -= len(view)
        return super().write(view)


async def test_a_disk_that_fills_up_in_the_middle_of_an_upload_keeps_what_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", DATA)
        path = f"/artifacts/{made.info_hash}"
        with monkeypatch.context() as patch:
            patch.setattr(uploads, "_open", lambda path: FullDisk(path, "ab"))
            problem = await fleet.operator.problem(
                "PUT", path, DATA, offset=0, length=made.length, sha256=made.sha256
            )
        assert problem.status == 503 and "free some space" in problem.hint
        state = await fleet.operator.ask("GET", path, wire.ArtifactState)
        assert (state.stored_bytes, state.complete) == (2_500_000, False)
        rest = await fleet.operator.upload(made, DATA[2_500_000:], offset=2_500_000)
        assert rest.complete
        assert (await fleet.operator.publish(fleet.publisher)).releases == 1


async def test_a_clone_behind_another_point_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clones, "LOOK_EVERY_S", 0.05)
    async with open_fleet(tmp_path) as fleet:
        points = [await enrolled_device(fleet, name=name) for name in ("here", "there")]
        device, honest = (
            await enrolled_device(fleet, name="original"),
            await enrolled_device(fleet, name="honest"),
        )
        for point in points:
            fleet.publisher.add_grant(point.node, "/")
        await fleet.operator.publish(fleet.publisher)
        async with points[0].attached() as here, points[1].attached() as there:
            await points[0].carry(here, device, honest)
            await points[1].carry(there, device)
            with trio.fail_after(PATIENCE_S):
                while not (await detail(fleet.operator, device)).clones:
                    await trio.sleep(0.05)
        shown = await detail(fleet.operator, device)
        assert "two places" in shown.clones[0].reason
        assert not (await detail(fleet.operator, honest)).clones


async def detail(operator: Operator, device: TestDevice) -> wire.DeviceDetail:
    return await operator.ask("GET", f"/devices/{device.node}", wire.DeviceDetail)
