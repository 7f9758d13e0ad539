"""What an operator is told about one release on one device."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from serverkit import Fleet, TestDevice, enrolled_device, open_fleet

from p2pdist.core.mirrors import account_of
from p2pdist.ids import NodeId
from p2pdist.swarm.torrents import MadeTorrent
from p2pdist.wire import api as wire
from p2pdist.wire.frames import Candidate
from p2pdist.wire.messages import ContentReport, FromDevice, Progress, Received, Refusal, Report, SourceBytes

pytestmark = pytest.mark.slow  # whole servers, their databases and certificates

DATA = bytes(range(256)) * 1_000
TARGET = "stable/app/1.0/app.bin"
BERLIN = "/emea/berlin"


async def published(fleet: Fleet, *mirrors: str) -> tuple[MadeTorrent, TestDevice, TestDevice]:
    """A release, a distribution point for Berlin, and a device there."""
    made = fleet.publisher.add_release("1.0", DATA, **({"mirrors": list(mirrors)} if mirrors else {}))
    await fleet.operator.ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path=BERLIN))
    await fleet.operator.ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path="/emea/paris"))
    point, other = await enrolled_device(fleet, name="berlin"), await enrolled_device(fleet, name="paris")
    fleet.publisher.add_grant(point.node, BERLIN)
    fleet.publisher.add_grant(other.node, "/emea/paris")
    await fleet.operator.publish(fleet.publisher)
    return made, point, await enrolled_device(fleet, BERLIN, name="cash-desk")


async def explained(fleet: Fleet, device: TestDevice) -> wire.Explanation:
    return await fleet.operator.ask("GET", "/explain", wire.Explanation, device=device.node, target="app@1.0")


async def ordered(fleet: Fleet) -> wire.DeploymentInfo:
    body = wire.NewDeployment(target="app@1.0", group=BERLIN)
    return await fleet.operator.ask("POST", "/deployments", wire.DeploymentInfo, body)


async def said(device: TestDevice, *messages: FromDevice) -> None:
    """Send messages and a last one that is acknowledged: then all of them are stored."""
    async with device.attached() as link:
        frames = link.frames()
        for message in messages:
            await device.send(link, message)
        last = secrets.token_hex(4)  # the server says again what earlier links did not hear
        end = Report(
            id=last, deployment="none", target=TARGET, stage="failed", reason="", exit_code=None, finished=1
        )
        await device.send(link, end)
        while last not in (await device.next_message(frames, Received)).ids:
            pass


def reported(made: MadeTorrent, held: int, *sources: SourceBytes, **fields: int) -> ContentReport:
    candidates = [
        Candidate(node=s.node, role=s.role, host="192.0.2.1", port=7602, taken=True, reason="same site")
        for s in sources
        if s.role != "mirror"
    ]
    return ContentReport(
        info_hash=made.info_hash,
        target=TARGET,
        held=held,
        sources=list(sources),
        candidates=candidates,
        **fields,
    )


def by_name(answer: wire.Explanation) -> dict[str, wire.ExplainedSource]:
    return {source.name: source for source in answer.sources}


async def test_the_origin_and_the_points_of_other_sites_stand_in_every_explanation(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made, point, device = await published(fleet)
        await ordered(fleet)
        before = by_name(await explained(fleet, device))
        assert before["admin server"].reason == "over the WAN only distribution points fetch from the origin"
        assert before["berlin"].reason == "the distribution point of this site; it is offline"
        assert before["paris"].reason.startswith("it serves /emea/paris")
        got = SourceBytes(node=point.node, role="point", received=200_000, sent=0)
        await said(device, reported(made, len(DATA), got, unattributed=len(DATA) - 200_000, wasted=4_096))
        after = await explained(fleet, device)
        assert by_name(after)["berlin"].taken and not by_name(after)["admin server"].taken
        assert sum(s.received for s in after.sources) + after.unattributed == after.held == len(DATA)
        assert after.wasted == 4_096
        status = await fleet.operator.ask("GET", "/status", wire.Status)
        assert (status.unattributed["device"], status.wasted["device"]) == (after.unattributed, 4_096)


async def test_a_device_that_fetched_a_delta_is_explained_by_the_deltas_sources(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        old = fleet.publisher.add_release("0.9", DATA[::-1], sequence=9)
        made = fleet.publisher.add_release("1.0", DATA)
        delta = fleet.publisher.add_delta(old, "1.0", b"delta" * 1_000)
        device = await enrolled_device(fleet, name="cash-desk")
        await fleet.operator.publish(fleet.publisher)
        got = SourceBytes(node=NodeId(fleet.service.home.key.node), role="origin", received=5_000, sent=0)
        await said(device, reported(delta, 5_000, got))
        answer = await explained(fleet, device)
        assert by_name(answer)["admin server"].received == answer.held == 5_000
        assert any("a delta of 5000 bytes stands for the artifact's 256000" in n for n in answer.notes)
        passed = SourceBytes(node=device.node, role="device", received=0, sent=70_000)
        await said(device, reported(made, len(DATA), passed))
        later = await explained(fleet, device)
        assert later.held == len(DATA) and by_name(later)["admin server"].received == 5_000


async def test_what_a_point_holds_for_its_scope_is_held(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made, point, _ = await published(fleet)
        await ordered(fleet)
        origin = SourceBytes(node=NodeId(fleet.service.home.key.node), role="origin", received=9, sent=0)
        await said(point, reported(made, len(DATA) // 2, origin))
        halfway = await explained(fleet, point)
        assert (halfway.stage, halfway.fraction) == ("fetching", 0.5)
        await said(point, reported(made, len(DATA), origin))
        answer = await explained(fleet, point)
        assert (answer.stage, answer.fraction) == ("held", 1.0)
        assert answer.notes[0].startswith("it is a distribution point for /emea/berlin")
        assert not any("no deployment" in note for note in answer.notes)


async def test_a_mirror_is_a_source_by_the_name_of_its_server(tmp_path: Path) -> None:
    url = "https://vendor.example/app.bin"
    async with open_fleet(tmp_path) as fleet:
        made, point, _ = await published(fleet, url)
        await ordered(fleet)
        got = SourceBytes(node=account_of(url), role="mirror", received=len(DATA), sent=0)
        await said(point, reported(made, len(DATA), got))
        answer = by_name(await explained(fleet, point))
        assert (answer["vendor.example"].role, answer["vendor.example"].received) == ("mirror", len(DATA))
        assert answer["vendor.example"].taken
        assert answer["admin server"].received == 0


async def test_the_reason_of_a_refused_release_is_told(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        _, _, device = await published(fleet)
        order = await ordered(fleet)
        refused = Report(
            id="one", deployment=order.id, target=TARGET, stage="refused", reason="it is older", finished=1
        )
        await said(device, refused)
        answer = await explained(fleet, device)
        assert (answer.stage, answer.reason) == ("refused", "it is older")


async def test_a_device_that_a_stopped_deployment_left_in_the_middle_does_not_fetch(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        _, _, device = await published(fleet)
        order = await ordered(fleet)
        half = Progress(
            deployment=order.id, target=TARGET, stage="fetching", fraction=0.5, rate_bytes_per_s=1, sources=1
        )
        await said(device, half)
        assert (await explained(fleet, device)).stage == "fetching"
        await fleet.operator.ask("DELETE", f"/deployments/{order.id}", wire.DeploymentInfo)
        answer = await explained(fleet, device)
        assert (answer.stage, answer.fraction) == ("stopped", 0.5)
        assert answer.reason == "it was fetching when its deployment left it"
        assert any("was stopped" in note for note in answer.notes)
        shown = await fleet.operator.ask("GET", f"/deployments/{order.id}", wire.DeploymentDetail)
        assert (shown.deployment.stages, shown.devices[0].stage) == ({"stopped": 1}, "stopped")
        detail = await fleet.operator.ask("GET", f"/devices/{device.node}", wire.DeviceDetail)
        assert [state.stage for state in detail.deployments] == ["stopped"]


async def test_content_that_the_device_refused_is_told_with_the_name_of_who_sent_it(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        _, point, device = await published(fleet)
        await ordered(fleet)
        await said(
            device,
            Refusal(
                id="one", kind="content", subject=f"{TARGET} from {point.node}", at=1,
                reason=f"piece 3 from {point.node} does not match its signed hash",
            ),
            Refusal(id="two", kind="content", subject="stable/other/1.0/x", reason="altered", at=1),
        )  # fmt: skip
        notes = [note for note in (await explained(fleet, device)).notes if "refused" in note]
        assert notes == [
            f"it refused {TARGET} from berlin: piece 3 from berlin does not match its signed hash"
        ]
