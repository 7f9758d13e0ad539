"""The control plane over real links: admission, clones, revocation, desired states, reports, forgeries."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import msgspec
import nacl.utils
import pytest
import sqlalchemy as sa
import trio
from serverkit import (
    PATIENCE_S,
    Fleet,
    Publisher,
    TestDevice,
    enrolled_device,
    next_frame,
    open_fleet,
)

from p2pdist.errors import P2PDistError, TrustError, Unavailable
from p2pdist.ids import GroupPath, NodeId
from p2pdist.net.link import open_stranger_link
from p2pdist.server import service as service_module
from p2pdist.server.api import app
from p2pdist.server.control import plane as plane_module
from p2pdist.server.control import telling
from p2pdist.server.control.admit import RENEWALS_MAX
from p2pdist.server.control.ports import PlaneSettings
from p2pdist.store import incidents
from p2pdist.store.tables import certificates
from p2pdist.trust.certificates import make_request, parse_certificate
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.sealing import seal
from p2pdist.wire import api as wire
from p2pdist.wire import codec
from p2pdist.wire.frames import (
    Announce,
    AnyFrame,
    ContentRefused,
    MetadataVersions,
    Presence,
    Routed,
    Sources,
    Taken,
)
from p2pdist.wire.messages import (
    Certificate,
    DesiredState,
    Progress,
    RateLimits,
    Received,
    Refusal,
    RenewalRequest,
    Report,
    Revoked,
)
from p2pdist.wire.requests import (
    Bundle,
    BundleRequest,
    Enrolled,
    EnrolRequest,
    RenewRequest,
    Torrent,
    TorrentRequest,
)

pytestmark = pytest.mark.slow  # real processes, many kills or a whole server: not in the fast subset

DATA = bytes(range(256)) * 1_000


async def until_equal(ask: object, expected: object) -> None:
    """Poll something that another task is about to change."""
    with trio.fail_after(PATIENCE_S):
        while await ask() != expected:  # type: ignore[operator]  # an async function
            await trio.sleep(0.02)


async def ended(frames: AsyncIterator[AnyFrame]) -> tuple[list[AnyFrame], str]:
    """Every frame until the link ends, and why it ended."""
    seen: list[AnyFrame] = []
    with trio.fail_after(PATIENCE_S):
        try:
            async for frame in frames:
                seen.append(frame)
        except P2PDistError as error:
            return seen, str(error)
    return seen, ""


async def admitted(device: TestDevice) -> str:
    """Attach; return why the server ended the link, or nothing if it carries it."""
    try:
        async with device.attached() as link:
            frames = link.frames()
            await next_frame(frames, MetadataVersions)
            await device.send(link, device.heartbeat())
            await device.next_message(frames, DesiredState)
            return ""
    except (P2PDistError, AssertionError) as error:
        return str(error) or "it ended"


async def deploy(fleet: Fleet, target: str = "app@1.0", group: str = "/") -> wire.DeploymentInfo:
    body = wire.NewDeployment(target=target, group=group)
    return await fleet.operator.ask("POST", "/deployments", wire.DeploymentInfo, body)


# Admission ---------------------------------------------------------------------------------------------


async def test_a_token_enrols_a_device_into_its_group(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        await fleet.operator.ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path="/emea"))
        device = TestDevice(fleet)
        enrolled = await device.enrol(await fleet.operator.token("/emea"))
        certificate = parse_certificate(enrolled.certificate)
        assert (enrolled.node, certificate.node, certificate.group) == (device.node, device.node, "/emea")
        assert certificate.swarms == ()


async def test_of_two_machines_that_race_for_a_one_use_token_exactly_one_is_enrolled(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        token = await fleet.operator.token("/")
        refusals: list[str] = []

        async def attempt() -> None:
            try:
                await TestDevice(fleet).enrol(token)
            except TrustError as error:
                refusals.append(str(error))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(attempt)
        assert len(refusals) == 3 and all("used once" in text for text in refusals)

        async def recorded() -> list[tuple[str, bool]]:
            answer = await fleet.operator.ask("GET", "/refusals", wire.RefusalList)
            return [(r.subject, "used once" in r.reason) for r in answer.refusals]

        await until_equal(recorded, [("127.0.0.1", True)])
        listed = await fleet.operator.ask("GET", "/devices", wire.DeviceList)
        assert len(listed.devices) == 1


async def test_a_late_unknown_or_withdrawn_token_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        token = await fleet.operator.token("/")
        (listed,) = (await fleet.operator.ask("GET", "/tokens", wire.TokenList)).tokens

        def age(connection: sa.Connection) -> None:
            connection.exec_driver_sql("UPDATE enrolment_tokens SET expires = 1800000000 - 200000000")

        await fleet.service.store.write(age)
        with pytest.raises(TrustError, match="expired on 2020-09-13 at 12:26 UTC"):
            await TestDevice(fleet).enrol(token)

        async def refused() -> list[tuple[str, str, int]]:
            answer = await fleet.operator.ask("GET", "/refusals", wire.RefusalList)
            return [(r.kind, r.subject, f"{listed.id} expired" in r.reason) for r in answer.refusals]

        await until_equal(refused, [("stranger", "127.0.0.1", True)])
        await fleet.operator.ask("DELETE", f"/tokens/{listed.id}", wire.Done)
        for wrong in (token, "p2p_guess", "\0"):
            with pytest.raises(TrustError, match="not one of this fleet"):
                await TestDevice(fleet).enrol(wrong)


async def test_the_same_machine_enrols_again_as_the_same_device(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        first = device.certificate
        await device.enrol(await fleet.operator.token("/"), name="new name")
        assert device.certificate != first
        (listed,) = (await fleet.operator.ask("GET", "/devices", wire.DeviceList)).devices
        assert listed.name == "new name" and listed.clones == 0


async def test_a_cloned_machine_is_refused_and_shown(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet, name="original")
        clone = TestDevice(fleet, device.key, machine="another machine")
        token = await fleet.operator.token("/")
        with pytest.raises(TrustError, match="its disk was cloned"):
            await clone.enrol(token)
        detail = await fleet.operator.ask("GET", "/devices/original", wire.DeviceDetail)
        assert detail.device.clones == 1 and detail.clones[0].host == "127.0.0.1"
        listed = await fleet.operator.ask("GET", "/tokens", wire.TokenList)
        assert sorted(each.uses_left for each in listed.tokens) == [0, 1]


async def test_a_request_signed_by_another_key_or_sealed_for_another_server_is_refused(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        token = await fleet.operator.token("/")
        honest = make_request(IdentityKey.generate())
        forged = honest.replace(honest[100:110], b"AAAAAAAAAA")
        with pytest.raises(P2PDistError):
            await TestDevice(fleet).enrol(token, request=forged)
        async with open_stranger_link(
            *fleet.link, ca_pem=fleet.ca_pem, expect=fleet.service.home.key.node
        ) as link:
            with pytest.raises(TrustError, match="does not open"):
                await link.request("/enrol", EnrolRequest(sealed=b"x" * 200), Enrolled)
            for path in ("/bundle", "/torrent"):
                with pytest.raises(TrustError, match="certificate"):
                    await link.request(path, BundleRequest(have={}), Bundle)
        assert (await fleet.operator.ask("GET", "/tokens", wire.TokenList)).tokens[0].uses_left == 1


async def test_a_node_that_was_never_enrolled_here_gets_no_link(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        stranger = TestDevice(fleet)
        stranger.certificate = fleet.service.home.authority.issue(
            stranger.key.public, group=GroupPath("/"), swarms=(), life_s=60, now=datetime.now(UTC)
        )
        assert "not enrolled" in await admitted(stranger)
        assert stranger.node not in fleet.service.plane.attached()


# Clones on links ---------------------------------------------------------------------------------------


async def test_two_machines_with_one_key_are_noticed_and_one_of_them_is_refused(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet, name="original")
        reasons: list[str] = []

        async def machine(done: trio.Event) -> None:
            """Dials again whenever its link ends, as a node does; a refusal ends it."""
            while not done.is_set():
                try:
                    async with device.attached() as link:
                        _, why = await ended_or(link.frames(), done)
                except P2PDistError as error:
                    why = str(error)
                if "two machines" in why:
                    reasons.append(why)
                    done.set()

        done = trio.Event()
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(machine, done)
                nursery.start_soon(machine, done)
        assert "a disk was cloned" in reasons[0]
        detail = await fleet.operator.ask("GET", "/devices/original", wire.DeviceDetail)
        assert detail.device.clones >= 1 and "at the same time" in detail.clones[0].reason


async def ended_or(frames: AsyncIterator[AnyFrame], done: trio.Event) -> tuple[list[AnyFrame], str]:
    """Like `ended`, until *done*."""
    outcome: tuple[list[AnyFrame], str] = ([], "")
    async with trio.open_nursery() as nursery:

        async def stop() -> None:
            await done.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(stop)
        outcome = await ended(frames)
        nursery.cancel_scope.cancel()
    return outcome


async def test_a_device_whose_link_died_unnoticed_may_come_back(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet, name="original")
        async with device.attached() as unnoticed:
            await next_frame(unnoticed.frames(), MetadataVersions)
            assert await admitted(device) == ""
        detail = await fleet.operator.ask("GET", f"/devices/{device.node}", wire.DeviceDetail)
        assert detail.device.clones == 0


# Revocation --------------------------------------------------------------------------------------------


async def test_a_revoked_device_is_told_loses_its_link_and_comes_back_no_more(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet, name="stolen")
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat())
            await device.next_message(frames, DesiredState)
            body = wire.RevokeDevice(reason="it was stolen")
            await fleet.operator.ask("POST", f"/devices/{device.node}/revoke", wire.DeviceInfo, body)
            seen, why = await ended(frames)
            assert "it was stolen" in why
            told = [device.read(frame) for frame in seen if isinstance(frame, Routed)]
            assert Revoked(reason="it was stolen") in told
        assert await admitted(device)
        with pytest.raises(TrustError, match="it was stolen"):
            await device.enrol(await fleet.operator.token("/"))
        with pytest.raises(TrustError, match="revoked"):
            await renew_as_stranger(fleet, device)
        assert device.node not in fleet.service.plane.attached()


async def test_what_a_revoked_device_says_through_a_point_does_not_end_the_points_link(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        point, stolen = (
            await enrolled_device(fleet, name="point"),
            await enrolled_device(fleet, name="stolen"),
        )
        fleet.publisher.add_grant(point.node, "/")
        await fleet.operator.publish(fleet.publisher)
        body = wire.RevokeDevice(reason="it was stolen")
        await fleet.operator.ask("POST", f"/devices/{stolen.node}/revoke", wire.DeviceInfo, body)
        async with point.attached() as link:
            frames = link.frames()
            await point.carry(link, stolen)
            await stolen.send(link, stolen.heartbeat())
            await point.send(link, point.heartbeat())
            assert (await routed_state(frames, point)).revoked == [stolen.node]
        assert stolen.node not in fleet.service.plane.attached()


async def test_a_point_is_told_of_the_revoked_below_its_scope_while_their_certificates_live(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        for group in ("/emea", "/apac"):
            await fleet.operator.ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path=group))
        point, device = await enrolled_device(fleet, name="point"), await enrolled_device(fleet)
        mine, late = await enrolled_device(fleet, "/emea"), await enrolled_device(fleet, "/emea")
        theirs = await enrolled_device(fleet, "/apac")
        fleet.publisher.add_grant(point.node, "/emea")
        await fleet.operator.publish(fleet.publisher)

        def run_out(connection: sa.Connection) -> None:
            connection.execute(
                sa.update(certificates).where(certificates.c.node == late.node).values(expires=1)
            )

        await fleet.service.store.write(run_out)
        async with point.attached() as link, device.attached() as other:
            frames, others = link.frames(), other.frames()
            await point.send(link, point.heartbeat())
            await device.send(other, device.heartbeat())
            assert (await point.next_message(frames, DesiredState)).revoked == []
            assert (await device.next_message(others, DesiredState)).revoked == []
            body = wire.RevokeDevice(reason="gone")
            for node in (late.node, theirs.node, mine.node):
                await fleet.operator.ask("POST", f"/devices/{node}/revoke", wire.DeviceInfo, body)
            while not (told := (await point.next_message(frames, DesiredState)).revoked):
                pass
            assert told == [mine.node]
            await device.send(other, device.heartbeat())
            assert (await device.next_message(others, DesiredState)).revoked == []


async def test_a_revocation_holds_after_a_restart(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "signed")
    async with open_fleet(tmp_path, publisher) as fleet:
        device = await enrolled_device(fleet)
        body = wire.RevokeDevice(reason="gone")
        await fleet.operator.ask("POST", f"/devices/{device.node}/revoke", wire.DeviceInfo, body)
    async with open_fleet(tmp_path, publisher) as fleet:
        device.fleet = fleet
        assert "gone" in await admitted(device)


# Renewal -----------------------------------------------------------------------------------------------


async def renew_as_stranger(fleet: Fleet, device: TestDevice, *, key: IdentityKey | None = None) -> Enrolled:
    message = RenewalRequest(request=make_request(key or device.key))
    envelope = seal(
        codec.encode(message),
        key=device.key,
        recipient_public=fleet.service.home.key.public,
        counter=time.time_ns(),
        expires=int(time.time()) + 60,
        nonce=nacl.utils.random(24),
    )
    async with open_stranger_link(
        *fleet.link, ca_pem=fleet.ca_pem, expect=fleet.service.home.key.node
    ) as link:
        return await link.request("/renew", RenewRequest(envelope=envelope), Enrolled)


async def test_a_certificate_is_renewed_on_the_link_and_after_it_has_expired(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, RenewalRequest(request=make_request(device.key)))
            renewed = await device.next_message(frames, Certificate)
            assert parse_certificate(renewed.certificate).node == device.node
        assert (await renew_as_stranger(fleet, device)).node == device.node
        with pytest.raises(TrustError, match="another key"):
            await renew_as_stranger(fleet, device, key=IdentityKey.generate())
        unknown = TestDevice(fleet)
        with pytest.raises(TrustError, match="not enrolled"):
            await renew_as_stranger(fleet, unknown)


async def test_a_device_that_renews_without_end_is_refused_for_a_while(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device, other = await enrolled_device(fleet), await enrolled_device(fleet)
        for _ in range(RENEWALS_MAX):
            await renew_as_stranger(fleet, device)
        with pytest.raises(Unavailable, match="check its clock"):
            await renew_as_stranger(fleet, device)
        await renew_as_stranger(fleet, other)


# Desired states ----------------------------------------------------------------------------------------


async def test_a_deployment_reaches_its_devices_at_once_and_a_certificate_follows(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat())
            first = await device.next_message(frames, DesiredState)
            assert (first.deployments, first.swarms) == ([], [])
            order = await deploy(fleet)
            second = await device.next_message(frames, DesiredState)
            assert second.revision > first.revision
            assert [(d.id, d.target) for d in second.deployments] == [(order.id, order.target)]
            await device.send(link, RenewalRequest(request=make_request(device.key)))
            renewed = await device.next_message(frames, Certificate)
            assert list(parse_certificate(renewed.certificate).swarms) == second.swarms != []
            await fleet.operator.ask("DELETE", f"/deployments/{order.id}", wire.DeploymentInfo)
            third = await device.next_message(frames, DesiredState)
            assert third.deployments == [] and third.revision > second.revision


async def test_a_device_that_joins_later_gets_what_was_deployed_before(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        order = await deploy(fleet)
        device = await enrolled_device(fleet)
        assert parse_certificate(device.certificate).swarms == ("stable.acme.swarm.p2pdist.internal",)
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat())
            state = await device.next_message(frames, DesiredState)
            assert [d.id for d in state.deployments] == [order.id]


async def test_moving_a_device_or_its_group_changes_what_it_should_have(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        ask = fleet.operator.ask
        for path in ("/emea", "/apac"):
            await ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path=path))
        await deploy(fleet, group="/apac")
        device = await enrolled_device(fleet, "/emea")
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat())
            assert (await device.next_message(frames, DesiredState)).deployments == []
            await ask("POST", f"/devices/{device.node}/move", wire.DeviceInfo, wire.MoveDevice(group="/apac"))
            moved = await device.next_message(frames, DesiredState)
            assert moved.group == "/apac" and len(moved.deployments) == 1
            body = wire.MoveGroup(path="/apac", to="/asia")
            await ask("POST", "/groups/move", wire.GroupsChanged, body)
            renamed = await device.next_message(frames, DesiredState)
            assert renamed.group == "/asia" and len(renamed.deployments) == 1


async def test_rates_of_the_nearest_group_reach_the_device(tmp_path: Path) -> None:
    plane = PlaneSettings(
        host="127.0.0.1",
        port=0,
        rates={GroupPath("/"): RateLimits(wan_down=9), GroupPath("/emea"): RateLimits(wan_down=5)},
    )
    async with open_fleet(tmp_path, plane=plane) as fleet:
        body = wire.NewGroup(path="/emea/berlin")
        await fleet.operator.ask("POST", "/groups", wire.GroupsChanged, body)
        device = await enrolled_device(fleet, "/emea/berlin")
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat())
            assert (await device.next_message(frames, DesiredState)).rates.wan_down == 5


async def test_a_heartbeat_with_an_older_revision_is_answered_and_one_that_is_current_is_not(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat())
            state = await device.next_message(frames, DesiredState)
            await device.send(link, device.heartbeat(state.revision))
            await device.send(link, Refusal(id="mark", kind="stranger", subject="x", reason="y", at=1))
            with trio.fail_after(PATIENCE_S):
                async for frame in frames:
                    if isinstance(frame, Taken):
                        continue
                    assert isinstance(frame, Routed)
                    message = device.read(frame)
                    if isinstance(message, Received):
                        break
                    raise AssertionError(message)
            await device.send(link, device.heartbeat(state.revision - 1))
            assert (await device.next_message(frames, DesiredState)).deployments == []


# Metadata and content ----------------------------------------------------------------------------------


async def test_publishing_is_announced_and_bundles_and_torrents_are_handed_out(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            await next_frame(frames, MetadataVersions)
            made = fleet.publisher.add_release("1.0", DATA)
            await fleet.operator.publish(fleet.publisher)
            offered = await next_frame(frames, MetadataVersions)
            bundle = await link.request("/bundle", BundleRequest(have={}), Bundle)
            assert {"timestamp.json", "1.root.json"} <= set(bundle.files)
            have = dict(offered.versions)
            assert (await link.request("/bundle", BundleRequest(have=have), Bundle)).files == {}
            torrent = await link.request("/torrent", TorrentRequest(info_hash=made.info_hash), Torrent)
            assert torrent.torrent == made.torrent
            with pytest.raises(P2PDistError):
                await link.request("/torrent", TorrentRequest(info_hash="ab" * 32), Torrent)


async def test_a_device_that_announces_hears_of_the_origin(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            wanted = Presence(info_hash=made.info_hash, have=0, pieces=4, complete=False)
            await link.send(Announce(role="device", port=7000, artifacts=[wanted]))
            sources = await next_frame(frames, Sources)
            (candidate,) = sources.candidates
            assert (candidate.role, candidate.taken) == ("origin", True)
            assert (candidate.host, candidate.port) == ("127.0.0.1", fleet.service.origin.port)


async def test_a_device_that_claims_to_be_a_point_is_taken_for_a_device(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        liar, victim = await enrolled_device(fleet), await enrolled_device(fleet)
        presence = Presence(info_hash=made.info_hash, have=4, pieces=4, complete=True)
        async with liar.attached() as first, victim.attached() as second:
            await first.send(Announce(role="point", port=7000, artifacts=[presence]))
            await next_frame(first.frames(), Sources)
            await liar.carry(first, victim)
            await second.send(Announce(role="device", port=7001, artifacts=[presence]))
            sources = await next_frame(second.frames(), Sources)
            roles = {candidate.node: candidate.role for candidate in sources.candidates}
            assert roles[liar.node] == "device"
            assert fleet.service.plane.attached()[victim.node] is None


async def test_content_that_was_altered_at_the_server_is_reported_to_who_wants_it(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            fleet.service.origin.distrust(made.info_hash, "piece 0 does not match")
            wanted = Presence(info_hash=made.info_hash, have=0, pieces=4, complete=False)
            await link.send(Announce(role="device", port=7000, artifacts=[wanted]))
            refused = await next_frame(frames, ContentRefused)
            assert refused.source == fleet.service.home.key.node and "not what was signed" in refused.reason

        async def kinds() -> list[str]:
            listed = await fleet.operator.ask("GET", "/refusals", wire.RefusalList)
            return [f"{r.name}: {r.kind}" for r in listed.refusals]

        await until_equal(kinds, ["admin server: content"])


# Reports -----------------------------------------------------------------------------------------------


async def test_a_heartbeat_that_has_an_id_is_confirmed(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat())
            await device.send(link, device.heartbeat(id="h1"))
            assert (await device.next_message(frames, Received)).ids == ["h1"]


async def test_a_report_is_acknowledged_once_it_is_stored_and_a_second_time_too(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        order = await deploy(fleet)
        device = await enrolled_device(fleet)
        report = Report(
            id="r1", deployment=order.id, target=order.target, stage="failed", reason="exit code 3",
            exit_code=3, output=b"E: broken", seconds=4.0, finished=5,
        )  # fmt: skip
        async with device.attached() as link:
            frames = link.frames()
            for _ in range(2):
                await device.send(link, report)
                assert (await device.next_message(frames, Received)).ids == ["r1"]
        shown = await fleet.operator.ask("GET", f"/deployments/{order.id}", wire.DeploymentDetail)
        assert shown.finished
        assert [(d.stage, d.exit_code, d.output) for d in shown.devices] == [("failed", 3, "E: broken")]


async def test_an_envelope_has_its_receipt_once_it_is_stored_and_what_is_repeated_or_forged_has_one_too(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            refusal = Refusal(id="f", kind="stranger", subject="x", reason="y", at=1)
            sent = await device.send(link, refusal)
            assert await next_frame(frames, Taken) == Taken(count=1)
            assert await fleet.service.store.read(incidents.count_refusals) == 1
            await link.send(sent)
            assert await next_frame(frames, Taken) == Taken(count=2)
            await link.send(Routed(envelope=msgspec.structs.replace(sent.envelope, counter=2**40)))
            assert await next_frame(frames, Taken) == Taken(count=3)


async def test_nothing_is_acknowledged_that_is_not_stored_while_the_disk_is_full(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)

        pages = 1  # SQLite raises it to the present size: nothing can be added

        def limit(connection: sa.Connection) -> None:
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

        failed = trio.Event()
        told = trio.lowlevel.current_trio_token()
        engine = fleet.service.store._engine
        sa.event.listen(engine, "begin", limit)
        sa.event.listen(engine, "handle_error", lambda context: told.run_sync_soon(failed.set))
        async with device.attached() as link:
            frames = link.frames()
            await next_frame(frames, MetadataVersions)
            large = [
                Refusal(id=f"f{n}", kind="content", subject="x" * 4_000, reason="y" * 4_000, at=n)
                for n in range(50)
            ]
            for refusal in large:
                await device.send(link, refusal)
            with trio.fail_after(PATIENCE_S):
                await failed.wait()
            assert (await fleet.operator.ask("GET", "/devices", wire.DeviceList)).devices
            large_token = wire.NewToken(group="/", note="n" * 4_000)
            problem = await fleet.operator.problem("POST", "/tokens", large_token)
            assert problem.status == 503 and "free some disk space" in problem.hint
            assert await fleet.service.store.read(incidents.count_refusals) == 0
            pages = 1_000_000
            acknowledged: set[str] = set()
            while len(acknowledged) < 50:
                acknowledged.update((await device.next_message(frames, Received)).ids)
                assert await fleet.service.store.read(incidents.count_refusals) >= len(acknowledged)
        assert await fleet.service.store.read(incidents.count_refusals) == 50


async def test_progress_on_something_unknown_does_no_harm(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            unknown = Progress(
                deployment="no such", target="x", stage="fetching", fraction=0.1,
                rate_bytes_per_s=1, sources=1,
            )  # fmt: skip
            await device.send(link, unknown)
            await device.send(link, Refusal(id="f", kind="stranger", subject="x", reason="y", at=1))
            assert (await device.next_message(frames, Received)).ids == ["f"]


# Forgeries ---------------------------------------------------------------------------------------------


async def test_envelopes_to_one_device_are_numbered_in_a_row_and_higher_after_a_restart(
    tmp_path: Path,
) -> None:
    publisher = Publisher(tmp_path / "signed")
    counters: list[int] = []

    async def answers(device: TestDevice, other: TestDevice, count: int) -> None:
        async with device.attached() as link, other.attached() as noise:
            frames = link.frames()
            for number in range(count):
                await other.send(noise, other.heartbeat())
                await device.send(
                    link, Refusal(id=f"r{number}", kind="stranger", subject="x", reason="y", at=1)
                )
                counters.append((await next_frame(frames, Routed)).envelope.counter)

    async with open_fleet(tmp_path, publisher) as fleet:
        device, other = await enrolled_device(fleet), await enrolled_device(fleet)
        await answers(device, other, 3)
    async with open_fleet(tmp_path, publisher) as fleet:
        device.fleet = other.fleet = fleet
        await answers(device, other, 2)
    first, later = counters[0], counters[3]
    assert counters == [first, first + 1, first + 2, later, later + 1]
    assert later > first + 2


async def test_replayed_forged_and_foreign_envelopes_change_nothing(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        victim, attacker = await enrolled_device(fleet, name="victim"), await enrolled_device(fleet)
        async with victim.attached() as honest, attacker.attached() as link:
            frames = honest.frames()
            seen = await victim.send(honest, victim.heartbeat(name="before"))
            await victim.next_message(frames, DesiredState)
            await victim.send(honest, victim.heartbeat(name="after"))
            await victim.send(honest, Refusal(id="m1", kind="stranger", subject="x", reason="y", at=1))
            await victim.next_message(frames, Received)
            envelope = seen.envelope
            await link.send(seen)
            await link.send(Routed(envelope=msgspec.structs.replace(envelope, counter=2**40)))
            await link.send(Routed(envelope=msgspec.structs.replace(envelope, sender=attacker.node)))
            await link.send(Routed(envelope=msgspec.structs.replace(envelope, recipient=attacker.node)))
            await link.send(Routed(envelope=msgspec.structs.replace(envelope, box=b"x" * 100)))
            await attacker.send(link, Refusal(id="m2", kind="stranger", subject="x", reason="y", at=1))
            await attacker.next_message(link.frames(), Received)
        detail = await fleet.operator.ask("GET", f"/devices/{victim.node}", wire.DeviceDetail)
        assert detail.device.name == "after" and detail.device.via == ""


async def test_an_envelope_replayed_after_a_restart_changes_nothing(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "signed")
    async with open_fleet(tmp_path, publisher) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            old = await device.send(link, device.heartbeat(name="before"))
            await device.next_message(frames, DesiredState)
            await device.send(link, device.heartbeat(name="after"))
            await device.send(link, Refusal(id="m1", kind="stranger", subject="x", reason="y", at=1))
            await device.next_message(frames, Received)
    async with open_fleet(tmp_path, publisher) as fleet:
        device.fleet = fleet
        async with device.attached() as link:
            await link.send(old)
            await device.send(link, Refusal(id="m2", kind="stranger", subject="x", reason="y", at=1))
            await device.next_message(link.frames(), Received)
        detail = await fleet.operator.ask("GET", f"/devices/{device.node}", wire.DeviceDetail)
        assert detail.device.name == "after"


async def test_orders_that_were_missed_behind_a_point_come_when_it_attaches_again(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        point, device = await enrolled_device(fleet, name="point"), await enrolled_device(fleet)
        fleet.publisher.add_grant(point.node, "/emea")
        fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        async with point.attached() as link:
            await point.carry(link, device)
            await device.send(link, device.heartbeat())
            known = await routed_state(link.frames(), device)
        await until_equal(attached_to(fleet), {})
        order = await deploy(fleet)
        async with point.attached() as link:
            await point.carry(link, device)
            told = await routed_state(link.frames(), device)
            assert [d.id for d in told.deployments] == [order.id] and told.revision > known.revision


def attached_to(fleet: Fleet) -> Callable[[], Awaitable[dict[NodeId, NodeId | None]]]:
    async def attached() -> dict[NodeId, NodeId | None]:
        return dict(fleet.service.plane.attached())

    return attached


async def routed_state(frames: AsyncIterator[AnyFrame], device: TestDevice) -> DesiredState:
    """The next desired state that a point is to pass on to a device."""
    while True:
        routed = await next_frame(frames, Routed)
        if routed.envelope.recipient == device.node:
            message = device.read(routed)
            assert isinstance(message, DesiredState)
            return message


async def test_a_state_on_its_way_is_said_again_under_the_same_revision(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat())
            first = await device.next_message(frames, DesiredState)
            await device.send(link, device.heartbeat())
            assert await device.next_message(frames, DesiredState) == first
            await device.send(link, device.heartbeat(first.revision + 5))  # its clock, or ours, went back
            assert (await device.next_message(frames, DesiredState)).revision > first.revision + 5


async def test_a_message_from_behind_a_point_is_answered_through_it(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        point, device = await enrolled_device(fleet, name="point"), await enrolled_device(fleet)
        fleet.publisher.add_grant(point.node, "/")
        await fleet.operator.publish(fleet.publisher)
        async with point.attached() as link:
            frames = link.frames()
            await point.carry(link, device)
            await device.send(link, device.heartbeat())
            with trio.fail_after(PATIENCE_S):
                routed = await next_frame(frames, Routed)
                while routed.envelope.recipient != device.node:
                    routed = await next_frame(frames, Routed)
            assert isinstance(device.read(routed), DesiredState)
            listed = await fleet.operator.ask("GET", "/points", wire.PointList)
            assert [(p.state, p.carries) for p in listed.points] == [("online", 1)]

            async def via() -> str:
                detail = await fleet.operator.ask("GET", f"/devices/{device.node}", wire.DeviceDetail)
                return detail.device.via

            await until_equal(via, point.node)


# Upkeep ------------------------------------------------------------------------------------------------


async def test_online_roles_are_signed_again_before_they_expire_and_announced(tmp_path: Path) -> None:
    async with open_fleet(tmp_path, timestamp_life_s=3) as fleet:
        fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            first = (await next_frame(frames, MetadataVersions)).versions["timestamp"]
            second = (await next_frame(frames, MetadataVersions)).versions["timestamp"]
            assert second > first
            bundle = await link.request("/bundle", BundleRequest(have={"timestamp": first}), Bundle)
            assert "timestamp.json" in bundle.files
        status = await fleet.operator.ask("GET", "/status", wire.Status)
        assert status.problems == [] and status.metadata_expires is not None
        assert status.metadata_expires > time.time() + 80 * 86_400


async def test_a_grant_that_expires_makes_its_point_a_device_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = SimpleNamespace(time=lambda: time.time() + 2 * 3_600)
    async with open_fleet(tmp_path) as fleet:
        fleet.publisher.add_release("1.0", DATA)
        device = await enrolled_device(fleet, name="branch")
        fleet.publisher.add_grant(device.node, "/", expires=int(time.time()) + 3_600)
        await fleet.operator.publish(fleet.publisher)
        await deploy(fleet)
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat())
            assert (await device.next_message(frames, DesiredState)).prefetch == ["stable/app/1.0/app.bin"]
            for module in (plane_module, telling):
                monkeypatch.setattr(module, "time", later)
            monkeypatch.setattr(service_module, "_utc_now", lambda: datetime.now(UTC) + timedelta(hours=2))
            fleet.service._taken.set()  # the upkeep looks every half minute, and when something came
            assert (await device.next_message(frames, DesiredState)).prefetch == []
        monkeypatch.setattr(app, "time", later)
        status = await fleet.operator.ask("GET", "/status", wire.Status)
        assert any("grant" in problem and "expired" in problem for problem in status.problems)


async def test_strangers_in_the_swarm_are_recorded_as_refusals_of_the_server(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        for _ in range(3):
            fleet.service.incidents.note("stranger", "10.0.0.9:1234", "no certificate of this fleet")

        async def listed() -> list[tuple[str, str, str]]:
            answer = await fleet.operator.ask("GET", "/refusals", wire.RefusalList)
            return [(r.name, r.kind, r.subject) for r in answer.refusals]

        await until_equal(listed, [("admin server", "stranger", "10.0.0.9:1234")])
