"""The operator's commands against a real admin server."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from serverkit import Publisher, enrolled_device

from p2pdist.cli import publishing
from p2pdist.cli.content import PublishedAndDeployed
from p2pdist.cli.words import moment
from p2pdist.errors import Unavailable
from p2pdist.ids import FleetName
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.wire import api as wire
from p2pdist.wire.frames import Candidate
from p2pdist.wire.messages import ContentReport, Progress, Received, Refusal, Report, SourceBytes

from .conftest import OpenShell

pytestmark = pytest.mark.slow  # real processes, many kills or a whole server: not in the fast subset

DATA = bytes(range(256)) * 4_000


async def test_login_stores_a_profile_that_only_its_owner_can_read(open_shell: OpenShell, home: Path) -> None:
    async with open_shell() as shell:
        folder = home / ".config" / "p2pdist"
        assert (folder / "token").stat().st_mode & 0o777 == 0o600
        assert (folder / "token").read_text().strip() == shell.fleet.token
        assert "acme" in await shell("status")


async def test_login_with_the_certificate_of_another_fleet_is_refused(
    open_shell: OpenShell, home: Path, tmp_path: Path
) -> None:
    async with open_shell() as shell:
        other = tmp_path / "other.pem"
        other.write_bytes(FleetAuthority.create(FleetName("evil"), datetime.now(UTC)).certificate_pem)
        url = f"https://{shell.fleet.api[0]}:{shell.fleet.api[1]}"
        await shell("login", url, "--token-file", str(home / "key"), "--ca", str(other), code=4)
        assert "certificate of this fleet" in shell.stderr


async def test_what_is_wrong_is_said_with_the_next_step_and_an_exit_code(
    open_shell: OpenShell, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_shell() as shell:
        await shell("group", "add", "emea", code=2)
        assert "not a group path" in shell.stderr and "next:" in shell.stderr
        await shell("device", "show", "nobody", code=2)
        assert "p2pdist device list" in shell.stderr
        await shell("nonsense", code=2)
        await shell("device", "show", "nobody", "--output", "json", code=2)
        said = json.loads(shell.stderr)
        assert "no device" in said["error"] and said["hint"] == "p2pdist device list shows them"
        for wrong in (("nonsense", "-o", "json"), ("deploy", "app@1.0", "--output=json")):
            assert await shell(*wrong, code=2) == ""
            assert json.loads(shell.stderr)["error"]
        await shell("deploy", "app@1.0", code=2)
        monkeypatch.setenv("P2PDIST_SERVER", "https://127.0.0.1:1")
        await shell("status", code=5)
        assert "cannot be reached" in shell.stderr
        monkeypatch.setenv("P2PDIST_SERVER", "http://127.0.0.1:1")
        await shell("status", code=2)
        monkeypatch.delenv("P2PDIST_SERVER")
        (home / ".config" / "p2pdist" / "token").chmod(0o644)
        await shell("status", code=2)
        assert "chmod 600" in shell.stderr


async def test_groups_and_tokens(open_shell: OpenShell, tmp_path: Path) -> None:
    async with open_shell() as shell:
        assert "/emea, /emea/berlin" in await shell("group", "add", "/emea/berlin")
        assert "/europe/berlin" in await shell("group", "move", "/emea", "/europe")
        assert "/europe/berlin" in await shell("group", "list")
        secret = (await shell("token", "add", "/europe", "--uses", "3", "--valid", "7d")).strip()
        assert secret.startswith("p2p_")
        target = tmp_path / "token"
        await shell("token", "add", "/europe", "--to", str(target), "--note", "for [red]Berlin[/red]")
        assert target.stat().st_mode & 0o777 == 0o600
        listed = await shell("token", "list")
        assert secret not in listed and "3 of 3" in listed and "[red]Berlin[/red]" in listed
        for token in (await shell.json(wire.TokenList, "token", "list")).tokens:
            await shell("token", "remove", token.id)
        assert "no enrolment tokens" in await shell("token", "list")
        await shell("token", "add", "/europe", "--valid", "soon", code=2)
        await shell("group", "remove", "/europe/berlin")
        assert "group.remove" in await shell("audit")


async def test_a_reader_token_looks_and_does_not_touch(open_shell: OpenShell, tmp_path: Path) -> None:
    async with open_shell() as shell:
        reader = tmp_path / "reader"
        await shell("api-token", "add", "desk", "--role", "reader", "--to", str(reader))
        await shell("status", "--token-file", str(reader))
        await shell("group", "add", "/x", "--token-file", str(reader), code=2)
        assert "has the role reader" in shell.stderr
        (desk,) = [
            t for t in (await shell.json(wire.ApiTokenList, "api-token", "list")).tokens if t.name == "desk"
        ]
        await shell("api-token", "remove", desk.id)
        await shell("status", "--token-file", str(reader), code=2)


async def test_the_enrolment_bundle_is_one_file(open_shell: OpenShell, tmp_path: Path) -> None:
    async with open_shell() as shell:
        path = tmp_path / "fleet.enrolment"
        await shell("enrolment", "--to", str(path))
        bundle = EnrolmentBundle.load(path)
        assert bundle.fleet == "acme" and bundle.server_node == shell.fleet.service.home.key.node


async def test_publishing_a_directory_and_again(open_shell: OpenShell, tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    publication = publisher.write(tmp_path / "publication")
    async with open_shell(publisher) as shell:
        assert "published 1 releases" in await shell("publish", str(publication))
        published = await shell.json(wire.Published, "publish", str(publication))
        assert published.releases == 1
        assert "app@1.0" in await shell("release", "list")
        assert "1000.0 KiB" in await shell("release", "show", "stable/app/1.0/app.bin")
        assert "stable" in await shell("channel", "list")


async def test_publishing_can_deploy_what_is_new_to_the_server_and_nothing_else(
    open_shell: OpenShell, tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    async with open_shell(publisher) as shell:
        await shell("publish", str(publisher.write(tmp_path / "first")))
        await shell("group", "add", "/emea")
        publisher.add_release("2.0", DATA[:1_000], sequence=2)
        second = str(publisher.write(tmp_path / "second"))
        made = await shell.json(PublishedAndDeployed, "publish", second, "--deploy", "/emea")
        assert [(each.target, each.group) for each in made.deployments] == [
            ("stable/app/2.0/app.bin", "/emea")
        ]
        assert "nothing is deployed" in await shell("publish", second, "--deploy", "/emea")


async def test_an_interrupted_upload_goes_on_where_it_was(
    open_shell: OpenShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(tmp_path / "signed")
    made = publisher.add_release("1.0", DATA)
    publication = publisher.write(tmp_path / "publication")
    async with open_shell(publisher) as shell:
        await shell.fleet.operator.upload(made, DATA[:500_000])
        offsets = []
        whole = publishing._chunks

        def watched(path: Path, offset: int, *rest: object) -> object:
            offsets.append(offset)
            return whole(path, offset, *rest)  # type: ignore[arg-type]  # passed through

        monkeypatch.setattr(publishing, "_chunks", watched)
        await shell("publish", str(publication))
        assert offsets == [500_000]


async def test_a_connection_that_breaks_in_the_middle_is_tried_again(
    open_shell: OpenShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    publication = publisher.write(tmp_path / "publication")
    monkeypatch.setattr(publishing, "_WAIT_FIRST_S", 0.1)
    async with open_shell(publisher) as shell:
        whole, broken = publishing._chunks, []

        def breaking(path: Path, offset: int, *rest: object) -> object:
            for chunk in whole(path, offset, *rest):  # type: ignore[arg-type]  # passed through
                if not broken and offset:
                    broken.append(offset)
                    raise Unavailable("the cable was pulled")
                offset += len(chunk)
                yield chunk

        monkeypatch.setattr(publishing, "_chunks", breaking)
        await shell("publish", str(publication))
        assert broken and "app@1.0" in await shell("release", "list")


async def test_a_publication_that_does_not_verify_is_refused_before_anything_is_sent(
    open_shell: OpenShell, tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "signed")
    made = publisher.add_release("1.0", DATA)
    publication = publisher.write(tmp_path / "publication")
    for name, data in publisher.metadata(channel_signer="mallory").items():
        (publication / "metadata" / name).write_bytes(data)
    async with open_shell(publisher) as shell:
        await shell("publish", str(publication), code=4)
        state = await shell.fleet.operator.ask("GET", f"/artifacts/{made.info_hash}", wire.ArtifactState)
        assert state.stored_bytes == 0
        await shell("publish", str(tmp_path), code=2)


async def test_content_that_differs_from_what_was_signed_is_refused(
    open_shell: OpenShell, tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "signed")
    made = publisher.add_release("1.0", DATA)
    publication = publisher.write(tmp_path / "publication")
    artifact = publication / "artifacts" / made.info_hash
    async with open_shell(publisher) as shell:
        artifact.write_bytes(b"!" + DATA[1:])
        await shell("publish", str(publication), code=4)
        assert "SHA-256" in shell.stderr
        artifact.write_bytes(DATA[1:])
        await shell("publish", str(publication), code=2)
        artifact.unlink()
        await shell("publish", str(publication), code=2)
        assert "is missing" in shell.stderr


async def test_deploying_watching_and_explaining(open_shell: OpenShell, tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "signed")
    made = publisher.add_release("1.0", DATA)
    async with open_shell(publisher) as shell, trio.open_nursery() as nursery:
        fleet = shell.fleet
        await fleet.operator.publish(publisher)
        device = await enrolled_device(fleet, name="cash-desk")
        outcome: list[str] = []

        async def watch() -> None:
            outcome.append(await shell("deploy", "app@1.0", "/", "--wait", "--timeout", "30s"))

        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat(name="cash-desk"))
            nursery.start_soon(watch)
            with trio.fail_after(20):
                orders: list[wire.DeploymentInfo] = []
                while not orders:
                    listed = await fleet.operator.ask("GET", "/deployments", wire.DeploymentList)
                    orders = listed.deployments
            target = orders[0].target
            await device.send(
                link,
                Progress(
                    deployment=orders[0].id,
                    target=target,
                    stage="fetching",
                    fraction=0.5,
                    rate_bytes_per_s=1_000_000,
                    sources=1,
                ),
            )
            origin = fleet.service.home.key.node
            await device.send(
                link,
                ContentReport(
                    info_hash=made.info_hash,
                    target=target,
                    held=len(DATA),
                    wasted=16_384,
                    sources=[SourceBytes(node=origin, role="origin", received=len(DATA), sent=0)],
                    candidates=[
                        Candidate(
                            node=origin, role="origin", host="10.0.0.1", port=7602, taken=True,
                            reason="the origin: no distribution point could be reached",
                        ),
                        Candidate(
                            node="a" * 32, role="device", host="10.9.0.1", port=7602, taken=False,
                            reason="another site",
                        ),
                    ],
                ),
            )  # fmt: skip
            await device.send(
                link,
                Report(
                    id="report-1", deployment=orders[0].id, target=target, stage="installed",
                    reason="installed \x1b[31m1.0", exit_code=0, seconds=2.0, finished=1,
                ),
            )  # fmt: skip
            assert (await device.next_message(frames, Received)).ids == ["report-1"]
            with trio.fail_after(20):
                while not outcome:
                    await trio.sleep(0.05)
            assert "1 installed of 1" in outcome[0]
            shown = await shell("deployment", "show", orders[0].id)
            assert "cash-desk" in shown and "origin 1000.0 KiB" in shown and "\x1b" not in shown
            explained = await shell("explain", "cash-desk", "app@1.0")
            assert "admin server" in explained and "another site" in explained
            assert "no distribution point serves /" in explained
            assert "installed: installed" in explained
            assert (
                "fetched 1000.0 KiB from the origin (100%), 16.0 KiB more in vain; "
                "it holds 1000.0 KiB of 1000.0 KiB" in explained
            )
            await shell("explain", "cash", "app@1.0", "-o", "json", code=2)
            answer = await shell.json(wire.Explanation, "explain", device.node[:8], target)
            assert [(s.taken, s.received) for s in answer.sources] == [(True, len(DATA)), (False, 0)]
            assert "devices fetched" in await shell("status")
        assert "stopped" in await shell("deployment", "stop", orders[0].id)
        assert orders[0].id in await shell("deployment", "list")


async def test_waiting_for_a_deployment_that_fails_ends_with_code_6(
    open_shell: OpenShell, tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    async with open_shell(publisher) as shell:
        fleet = shell.fleet
        await fleet.operator.publish(publisher)
        device = await enrolled_device(fleet, name="cash-desk")
        order = await shell.json(wire.DeploymentInfo, "deploy", "app@1.0", "/")
        await shell("deploy", "app@1.0", "/", "--wait", "--timeout", "1s", code=5)
        async with device.attached() as link:
            frames = link.frames()
            report = Report(
                id="r", deployment=order.id, target=order.target, stage="failed",
                reason="the installer failed", exit_code=31, seconds=1.0, finished=1,
                output=b"".join(b"line %d\n" % number for number in range(30)) + b"\x1b[2Jno space \xff\n",
            )  # fmt: skip
            await device.send(link, report)
            await device.next_message(frames, Received)
        waited = await shell("deploy", "app@1.0", "/", "--wait", code=6)
        assert "the installer failed" in shell.stderr
        shown = await shell("deployment", "show", order.id)
        listed = await shell("device", "show", "cash-desk")
        for said, what in ((waited, "cash-desk"), (shown, "cash-desk"), (listed, order.target)):
            assert what in said and ", exit code 31 (the last 20 of 31 lines):" in said
            assert "    line 11\n" in said and "line 10\n" not in said
            assert "no space \ufffd\n" in said and "\x1b" not in said


async def test_a_failed_deployment_is_tried_again_on_all_devices_or_on_those_named(
    open_shell: OpenShell, tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    async with open_shell(publisher) as shell:
        await shell.fleet.operator.publish(publisher)
        device = await enrolled_device(shell.fleet, name="cash-desk")
        order = await shell.json(wire.DeploymentInfo, "deploy", "app@1.0", "/")
        assert "has failed on no device" in await shell("deployment", "retry", order.id)
        await shell("deployment", "retry", order.id, "cash-desk", code=2)
        assert "has not failed on cash-desk" in shell.stderr
        async with device.attached() as link:
            report = Report(
                id="r", deployment=order.id, target=order.target, stage="failed", reason="no", finished=1
            )
            await device.send(link, report)
            await device.next_message(link.frames(), Received)
        assert "tried again on 1 device\n" in await shell("deployment", "retry", order.id)
        assert "to be tried again; before: no" in await shell("deployment", "show", order.id)
        again = await shell.json(wire.RetriedDeployment, "deployment", "retry", order.id, "cash-desk")
        assert again.devices == [device.node]
        await shell("deployment", "retry", order.id, "--wait", "--timeout", "1s", code=5)


async def test_a_token_file_that_is_there_is_not_replaced(open_shell: OpenShell, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the only copy")
    async with open_shell() as shell:
        for command in (("token", "add", "/"), ("api-token", "add", "carol")):
            await shell(*command, "--to", str(file), code=2)
            assert "exists already" in shell.stderr
        assert file.read_text() == "the only copy"
        assert (await shell.json(wire.TokenList, "token", "list")).tokens == []


async def test_a_revoked_device_is_not_counted_in_a_deployment(open_shell: OpenShell, tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    async with open_shell(publisher) as shell:
        await shell.fleet.operator.publish(publisher)
        device = await enrolled_device(shell.fleet, name="cash-desk")
        order = await shell.json(wire.DeploymentInfo, "deploy", "app@1.0", "/")
        async with device.attached() as link:
            report = Report(
                id="r", deployment=order.id, target=order.target, stage="installed",
                reason="", exit_code=0, output=b"", seconds=1.0, finished=1,
            )  # fmt: skip
            await device.send(link, report)
            await device.next_message(link.frames(), Received)
        assert "1 installed of 1" in await shell("deployment", "list")
        await shell("revoke", "cash-desk", "--reason", "stolen")
        assert "no devices of 0" in await shell("deployment", "list")
        assert "no devices of 0" in await shell("deployment", "show", order.id)


async def test_a_device_is_revoked_by_its_name_or_enough_of_its_id(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        device = await enrolled_device(shell.fleet, name="till")
        await shell("revoke", device.node[:5], "--reason", "stolen", code=2)
        assert "is too short to revoke a device by" in shell.stderr
        assert "is revoked" in await shell("revoke", "till", "--reason", "stolen")


async def test_status_warns_weeks_before_signatures_and_grants_run_out(
    open_shell: OpenShell, tmp_path: Path
) -> None:
    publisher = Publisher(tmp_path / "signed")
    async with open_shell(publisher) as shell:
        device = await enrolled_device(shell.fleet, name="branch")
        soon = int(time.time() + 20.5 * 86_400)
        publisher.add_grant(device.node, "/", expires=soon)
        await shell("publish", str(publisher.write(tmp_path / "publication")))
        (grant,) = (await shell.json(wire.Status, "status")).problems
        assert "the seed grant" in grant and "expires in 20 days" in grant
        shell.fleet.service.people_expire = soon
        signed, _ = (await shell.json(wire.Status, "status")).problems
        assert "what people signed expires in 20 days" in signed


async def test_publishing_ends_with_when_people_must_sign(open_shell: OpenShell, tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    async with open_shell(publisher) as shell:
        said = await shell("publish", str(publisher.write(tmp_path / "publication")))
        assert moment(shell.fleet.service.people_expire) in said


async def test_refusals_and_revocation(open_shell: OpenShell, tmp_path: Path) -> None:
    async with open_shell() as shell:
        fleet = shell.fleet
        device = await enrolled_device(fleet, name="cash-desk")
        await shell("group", "add", "/old")
        async with device.attached() as link:
            frames = link.frames()
            await device.send(
                link, Refusal(id="f1", kind="rollback", subject="app", reason="older", at=1_700_000_000)
            )
            await device.next_message(frames, Received)
            assert "rollback" in await shell("refusals")
            assert "stands in /old" in await shell("device", "move", "cash-desk", "/old")
            assert "online" in await shell("device", "list")
            assert "cash-desk" in await shell("device", "show", device.node[:6])
            await shell("revoke", device.node[:6], "--reason", "stolen", code=2)
            assert "is revoked" in await shell("revoke", "cash-desk", "--reason", "stolen")
        assert "stolen" in await shell("device", "show", device.node)


async def test_points_are_listed_with_their_state(open_shell: OpenShell, tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "signed")
    async with open_shell(publisher) as shell:
        assert "p2pdist-sign grant" in await shell("point", "list")
        device = await enrolled_device(shell.fleet, name="branch-1")
        publisher.add_grant(device.node, "/")
        await shell.fleet.operator.publish(publisher)
        listed = await shell("point", "list")
        assert "branch-1" in listed and "offline" in listed
