"""The HTTP API over real HTTPS."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
import trio.testing
from serverkit import Operator, Publisher, enrolled_device, open_fleet

from p2pdist import limits
from p2pdist.server.api import app
from p2pdist.server.api import content as content_handlers
from p2pdist.server.api.routes import PREFIX, ROUTES
from p2pdist.store import content
from p2pdist.wire import api as wire
from p2pdist.wire.messages import DesiredState, Received, Report

pytestmark = pytest.mark.slow  # whole servers, their databases and certificates

DATA = bytes(range(256)) * 1_000


# Who may ask -----------------------------------------------------------------------------------------


async def test_nothing_but_health_and_the_description_answers_without_a_token(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet, fleet.client("") as stranger:
        operator = Operator(stranger)
        for route in ROUTES:
            if route.role is not None:
                path = route.path.replace("{target:path}", "x").replace("{info_hash}", "a" * 64)
                problem = await operator.problem(route.method, path.replace("{id}", "x"))
                assert (problem.status, problem.detail) == (401, "a token is needed")
        assert (await operator.ask("GET", "/health", wire.Health)).status == "ok"
        assert (await stranger.get(f"{PREFIX}/openapi.json")).status_code == 200


async def test_a_wrong_token_is_refused_with_the_next_step(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet, fleet.client("p2p_guessed") as stranger:
        problem = await Operator(stranger).problem("GET", "/status")
        assert problem.status == 401 and "p2pdist-server token" in problem.hint


async def test_a_role_may_do_its_own_and_no_more(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = await fleet.operator.ask(
            "POST", "/api-tokens", wire.MadeToken, wire.NewApiToken(name="desk", role="reader")
        )
        async with fleet.client(made.token) as client:
            reader = Operator(client)
            assert (await reader.ask("GET", "/groups", wire.GroupList)).groups[0].path == "/"
            problem = await reader.problem("POST", "/groups", wire.NewGroup(path="/emea"))
            assert problem.status == 403 and "reader" in problem.detail
            await fleet.operator.ask("DELETE", f"/api-tokens/{made.id}", wire.Done)
            assert (await reader.problem("GET", "/groups")).status == 401


async def test_the_server_shows_a_certificate_of_the_fleets_own_authority(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        url = f"https://{fleet.api[0]}:{fleet.api[1]}/api/v1/health"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await trio.to_thread.run_sync(httpx.get, url)
        context = ssl.create_default_context(cadata=fleet.ca_pem.decode())
        stream = await trio.open_ssl_over_tcp_stream(
            fleet.api[0], fleet.api[1], ssl_context=context, https_compatible=True
        )
        await stream.do_handshake()
        assert stream.version() == "TLSv1.3"
        await trio.aclose_forcefully(stream)


# Bad input -------------------------------------------------------------------------------------------


async def test_a_body_that_is_not_what_the_route_takes_is_a_problem_document(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        for body in (
            b"", b"{", b"[]", b'{"path": 7}', b'{"path": "/a", "more": 1}', b"\xff\xfe", b"[" * 9_999, b"null"
        ):  # fmt: skip
            problem = await fleet.operator.problem("POST", "/groups", body)
            assert problem.status == 400 and "NewGroup" in problem.detail and "openapi" in problem.hint


async def test_bad_requests_of_many_kinds_are_problem_documents(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        ask = fleet.operator.problem
        assert (await ask("GET", "/nonsense")).status == 404
        assert (await ask("DELETE", "/status")).status == 405
        assert "no query parameter" in (await ask("GET", "/groups", sort="up")).detail
        assert "not a number" in (await ask("GET", "/audit", limit="-1")).detail
        assert "not a group path" in (await ask("POST", "/groups", wire.NewGroup(path="emea"))).detail
        large = b'{"path": "' + b"a" * limits.API_BODY_BYTES_MAX + b'"}'
        assert "larger than" in (await ask("POST", "/groups", large)).detail
        assert "not an info-hash" in (await ask("GET", "/artifacts/xyz")).detail
        assert "no device" in (await ask("GET", "/devices/%C3%BF..%20")).detail


async def test_a_malformed_upgrade_or_garbage_does_not_end_the_server(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        context = ssl.create_default_context(cadata=fleet.ca_pem.decode())
        for garbage in (
            b"GET /api/v1/health HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            b"\x16\x03\x01garbage\r\n\r\n",
            b"POST /api/v1/groups HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
        ):
            stream = await trio.open_ssl_over_tcp_stream(
                fleet.api[0], fleet.api[1], ssl_context=context, https_compatible=True
            )
            await stream.send_all(garbage)
            with trio.move_on_after(2):
                await stream.receive_some(1_000)
            await trio.aclose_forcefully(stream)
        assert (await fleet.operator.ask("GET", "/health", wire.Health)).status == "ok"


@pytest.mark.parametrize("asked", ["POST /nonsense", "DELETE /status", "GET /status", "POST /groups"])
async def test_a_body_that_comes_after_its_request_was_refused_does_not_end_the_connection(
    tmp_path: Path, asked: str
) -> None:
    method, path = asked.split()
    first = f"{method} {PREFIX}{path} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"
    second = f"GET {PREFIX}/health HTTP/1.1\r\nhost: x\r\n\r\n"
    async with open_fleet(tmp_path) as fleet:
        context = ssl.create_default_context(cadata=fleet.ca_pem.decode())
        stream = await trio.open_ssl_over_tcp_stream(
            fleet.api[0], fleet.api[1], ssl_context=context, https_compatible=True
        )
        await stream.send_all(first.encode())
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"0123456789" + second.encode())
        answers = b""
        while b'"status":"ok"' not in answers:
            received = await stream.receive_some(4_096)
            assert received, answers
            answers += received
        await trio.aclose_forcefully(stream)


async def test_the_description_names_every_route_and_only_known_types(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        description = json.loads((await fleet.operator.client.get(f"{PREFIX}/openapi.json")).content)
        assert description["openapi"] == "3.1.0"
        operations = {(m, p) for p, methods in description["paths"].items() for m in methods}
        assert len(operations) == len(ROUTES)
        assert ("put", "/api/v1/artifacts/{info_hash}") in operations
        text = json.dumps(description)
        for reference in set(msgspec.json.decode(json.dumps(_references(description)), type=list[str])):
            assert reference.removeprefix("#/components/schemas/") in description["components"]["schemas"]
        assert "NewPublication" in text


def _references(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for inner in value.values() for ref in _references(inner)]
    if isinstance(value, list):
        return [ref for inner in value for ref in _references(inner)]
    return []


# Groups, tokens, devices -------------------------------------------------------------------------------


async def test_groups_are_made_moved_and_removed_and_written_down(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        ask = fleet.operator.ask
        made = await ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path="/emea/berlin"))
        assert made.paths == ["/emea", "/emea/berlin"]
        moved = await ask(
            "POST", "/groups/move", wire.GroupsChanged, wire.MoveGroup(path="/emea", to="/europe")
        )
        assert moved.paths == ["/europe", "/europe/berlin"]
        await ask("POST", "/groups/remove", wire.Done, wire.RemoveGroup(path="/europe/berlin"))
        assert [g.path for g in (await ask("GET", "/groups", wire.GroupList)).groups] == ["/", "/europe"]
        problem = await fleet.operator.problem("POST", "/groups/remove", wire.RemoveGroup(path="/nowhere"))
        assert problem.status == 400 and "p2pdist group add" in problem.hint
        log = await ask("GET", "/audit", wire.AuditList, limit=3)
        assert [e.action for e in log.entries] == ["group.remove", "group.move", "group.add"]
        assert {e.actor for e in log.entries} == {"ops"}


async def test_moving_a_group_that_a_grant_names_warns(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        await fleet.operator.ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path="/emea"))
        point = await enrolled_device(fleet, name="point-1")
        fleet.publisher.add_grant(point.node, "/emea")
        await fleet.operator.publish(fleet.publisher)
        moved = await fleet.operator.ask(
            "POST", "/groups/move", wire.GroupsChanged, wire.MoveGroup(path="/emea", to="/europe")
        )
        assert len(moved.warnings) == 1 and "sign a new grant" in moved.warnings[0]


async def test_a_token_shows_its_secret_once(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        secret = await fleet.operator.token("/", uses=3, note="for the lab")
        response = await fleet.operator.client.get(f"{PREFIX}/tokens")
        assert secret not in response.text
        (listed,) = msgspec.json.decode(response.content, type=wire.TokenList).tokens
        assert (listed.state, listed.uses_left, listed.note) == ("valid", 3, "for the lab")
        await fleet.operator.ask("DELETE", f"/tokens/{listed.id}", wire.Done)
        assert (await fleet.operator.problem("DELETE", f"/tokens/{listed.id}")).status == 400


async def test_a_device_is_shown_with_where_it_is(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet, name="cash-desk")
        listed = await fleet.operator.ask("GET", "/devices", wire.DeviceList, group="/")
        assert [(d.name, d.state, d.role) for d in listed.devices] == [("cash-desk", "offline", "device")]
        detail = await fleet.operator.ask("GET", "/devices/cash-desk", wire.DeviceDetail)
        assert detail.device.node == device.node and detail.deployments == []


# Publishing --------------------------------------------------------------------------------------------


async def test_publishing_makes_releases_and_points_known(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        before = await fleet.operator.ask("GET", "/status", wire.Status)
        assert before.problems == ["nothing is published yet: p2pdist publish DIR"]
        fleet.publisher.add_release("1.0", DATA)
        published = await fleet.operator.publish(fleet.publisher)
        assert (published.releases, published.points) == (1, 0)
        releases = await fleet.operator.ask("GET", "/releases", wire.ReleaseList)
        assert [(r.product, r.version, r.recipe, r.problem) for r in releases.releases] == [
            ("app", "1.0", "file", "")
        ]
        one = await fleet.operator.ask("GET", "/releases/app@1.0", wire.ReleaseInfo)
        assert one.target == "stable/app/1.0/app.bin"
        channels = await fleet.operator.ask("GET", "/channels", wire.ChannelList)
        assert [(c.name, c.releases) for c in channels.channels] == [("stable", 1)]
        assert (await fleet.operator.ask("GET", "/status", wire.Status)).problems == []


async def test_an_upload_continues_where_it_was_cut_off(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", DATA)
        path = f"/artifacts/{made.info_hash}"
        assert (await fleet.operator.upload(made, DATA[:70_000])).stored_bytes == 70_000
        wrong = await fleet.operator.problem(
            "PUT", path, DATA, offset=50_000, length=made.length, sha256=made.sha256
        )
        assert wrong.status == 409 and "70000" in wrong.detail
        head = await fleet.operator.client.head(PREFIX + path)
        assert head.status_code == 200 and head.headers["x-stored-bytes"] == "70000"
        state = await fleet.operator.upload(made, DATA[70_000:], offset=70_000)
        assert state.complete and state.stored_bytes == len(DATA)
        assert (await fleet.operator.upload(made, b"", offset=0)).complete


async def test_an_uploader_that_falls_silent_makes_way_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_DRAIN_S", 0.1)
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", DATA)
        context = ssl.create_default_context(cadata=fleet.ca_pem.decode())
        stream = await trio.open_ssl_over_tcp_stream(
            fleet.api[0], fleet.api[1], ssl_context=context, https_compatible=True
        )
        path = f"{PREFIX}/artifacts/{made.info_hash}?length={made.length}&sha256={made.sha256}"
        head = f"PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {fleet.token}\r\n"
        head += f"content-length: {made.length}\r\n\r\n"
        with monkeypatch.context() as patch:
            patch.setattr(content_handlers, "limits", Impatient())
            await stream.send_all(head.encode() + DATA[:10_000])
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += await stream.receive_some(4_096)
        stored = int(answer.partition(b"x-stored-bytes: ")[2].split()[0])
        assert 0 < stored <= 10_000 and b"connection: close" in answer
        await trio.aclose_forcefully(stream)
        assert (await fleet.operator.upload(made, DATA[stored:], offset=stored)).complete


class Impatient:
    """Caps under which an uploader has been silent for too long once its first bytes are here."""

    def __init__(self) -> None:
        self._waits = iter([60.0])

    @property
    def API_SILENCE_S(self) -> float:
        return next(self._waits, 0.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(limits, name)


async def test_an_upload_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "signed")
    made = publisher.add_release("1.0", DATA)
    async with open_fleet(tmp_path, publisher) as fleet:
        await fleet.operator.upload(made, DATA[:100_000])
    async with open_fleet(tmp_path, publisher) as fleet:
        state = await fleet.operator.ask("GET", f"/artifacts/{made.info_hash}", wire.ArtifactState)
        assert (state.stored_bytes, state.complete) == (100_000, False)
        assert (await fleet.operator.upload(made, DATA[100_000:], offset=100_000)).complete


async def test_uploaded_content_with_another_hash_is_thrown_away(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", DATA)
        altered = b"!" + DATA[1:]
        query = {"offset": 0, "length": made.length, "sha256": made.sha256}
        problem = await fleet.operator.problem("PUT", f"/artifacts/{made.info_hash}", altered, **query)
        assert problem.status == 422 and "SHA-256" in problem.detail
        state = await fleet.operator.ask("GET", f"/artifacts/{made.info_hash}", wire.ArtifactState)
        assert (state.stored_bytes, state.complete) == (0, False)
        too_much = await fleet.operator.problem("PUT", f"/artifacts/{made.info_hash}", DATA + b"!", **query)
        assert "more than" in too_much.detail


async def test_an_upload_that_does_not_fit_on_the_disk_is_refused_before_it_begins(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        query = {"length": limits.ARTIFACT_BYTES_MAX, "sha256": "a" * 64}
        problem = await fleet.operator.problem("PUT", f"/artifacts/{'b' * 64}", DATA, **query)
        assert problem.status == 503 and "the upload continues" in problem.hint


async def test_a_publication_without_its_content_or_torrent_changes_nothing(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", DATA)
        torrents = {str(made.info_hash): made.torrent}
        no_content = wire.NewPublication(metadata=fleet.publisher.metadata(), torrents=torrents)
        problem = await fleet.operator.problem("POST", "/publications", no_content)
        assert problem.status == 400 and "not at the server" in problem.detail
        await fleet.operator.upload(made, DATA)
        problem = await fleet.operator.problem(
            "POST", "/publications", wire.NewPublication(metadata=fleet.publisher.metadata())
        )
        assert "torrent" in problem.detail
        bad = wire.NewPublication(
            metadata=fleet.publisher.metadata(), torrents={str(made.info_hash): made.torrent[:-9]}
        )
        assert (await fleet.operator.problem("POST", "/publications", bad)).status == 422
        assert (await fleet.operator.ask("GET", "/releases", wire.ReleaseList)).releases == []


async def test_a_publication_signed_with_the_wrong_key_is_refused(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.upload(made, DATA)
        body = wire.NewPublication(
            metadata=fleet.publisher.metadata(channel_signer="mallory"),
            torrents={str(made.info_hash): made.torrent},
        )
        problem = await fleet.operator.problem("POST", "/publications", body)
        assert problem.status == 422 and "channel" in problem.detail
        for metadata in ({}, {"timestamp.json": b"{}"}, {"../../etc/passwd": b"x"}, {"1.root.json": b"\xff"}):
            body = wire.NewPublication(metadata=metadata)
            assert (await fleet.operator.problem("POST", "/publications", body)).status in (400, 422)
        assert fleet.service.catalog is None


async def test_an_older_publication_is_refused(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        fleet.publisher.add_release("1.0", DATA)
        old = fleet.publisher.metadata()
        await fleet.operator.publish(fleet.publisher)
        problem = await fleet.operator.problem("POST", "/publications", wire.NewPublication(metadata=old))
        assert problem.status == 422


async def test_content_that_was_altered_on_the_servers_disk_is_not_published(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.upload(made, DATA)
        fleet.service.home.artifact(made.info_hash).write_bytes(b"!" + DATA[1:])
        body = wire.NewPublication(
            metadata=fleet.publisher.metadata(), torrents={str(made.info_hash): made.torrent}
        )
        problem = await fleet.operator.problem("POST", "/publications", body)
        assert problem.status == 422 and "altered" in problem.detail
        state = await fleet.operator.ask("GET", f"/artifacts/{made.info_hash}", wire.ArtifactState)
        assert not state.complete


async def test_content_altered_while_the_server_was_off_is_shown_and_mended_by_uploading_again(
    tmp_path: Path,
) -> None:
    publisher = Publisher(tmp_path / "signed")
    made = publisher.add_release("1.0", DATA)
    async with open_fleet(tmp_path, publisher) as fleet:
        await fleet.operator.publish(publisher)
        artifact = fleet.service.home.artifact(made.info_hash)
    artifact.write_bytes(b"!" + DATA[1:])
    async with open_fleet(tmp_path, publisher) as fleet:
        with trio.fail_after(10):
            while not fleet.service.origin.damaged:
                await trio.testing.wait_all_tasks_blocked()
                await trio.lowlevel.checkpoint()
        status = await fleet.operator.ask("GET", "/status", wire.Status)
        assert any("not served" in problem for problem in status.problems)
        assert (await fleet.operator.ask("GET", "/releases/app@1.0", wire.ReleaseInfo)).problem
        await fleet.operator.upload(made, DATA)
        assert (await fleet.operator.ask("GET", "/status", wire.Status)).problems == []
        records = await fleet.service.store.read(content.list_artifacts)
        assert not records[made.info_hash].damage


# Deployments -------------------------------------------------------------------------------------------


async def test_a_deployment_is_ordered_listed_shown_and_stopped(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        ask = fleet.operator.ask
        fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        await enrolled_device(fleet, name="cash-desk")
        made = await ask(
            "POST", "/deployments", wire.DeploymentInfo, wire.NewDeployment(target="app@1.0", group="/")
        )
        assert (made.target, made.devices, made.stages) == ("stable/app/1.0/app.bin", 1, {"unheard": 1})
        again = await ask(
            "POST", "/deployments", wire.DeploymentInfo, wire.NewDeployment(target="app@1.0", group="/")
        )
        assert again.id == made.id
        shown = await ask("GET", f"/deployments/{made.id}", wire.DeploymentDetail)
        assert not shown.finished
        assert [(d.name, d.stage, d.reason) for d in shown.devices] == [
            ("cash-desk", "unheard", "it is offline")
        ]
        stopped = await ask("DELETE", f"/deployments/{made.id}", wire.DeploymentInfo)
        assert stopped.stopped is not None
        listed = await ask("GET", "/deployments", wire.DeploymentList)
        assert [d.id for d in listed.deployments] == [made.id]


async def test_a_deployment_is_tried_again_where_it_failed_and_devices_are_told(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        ask, problem = fleet.operator.ask, fleet.operator.problem
        fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        device = await enrolled_device(fleet, name="cash-desk")
        await enrolled_device(fleet, name="kiosk")
        body = wire.NewDeployment(target="app@1.0", group="/")
        made = await ask("POST", "/deployments", wire.DeploymentInfo, body)
        path = f"/deployments/{made.id}"
        nothing = await ask("POST", f"{path}/retry", wire.RetriedDeployment, wire.RetryDeployment())
        assert nothing.devices == []
        async with device.attached() as link:
            frames = link.frames()
            report = Report(
                id="r", deployment=made.id, target=made.target, stage="failed", reason="no", finished=1
            )
            await device.send(link, report)
            await device.next_message(frames, Received)
            again = await ask("POST", f"{path}/retry", wire.RetriedDeployment, wire.RetryDeployment())
            assert again.devices == [device.node]
            desired = await device.next_message(frames, DesiredState)
            while not (desired.deployments and desired.deployments[0].retry):
                desired = await device.next_message(frames, DesiredState)
            assert [(d.id, d.retry) for d in desired.deployments] == [(made.id, 1)]
            shown = await ask("GET", path, wire.DeploymentDetail)
            assert {d.name: (d.stage, d.retry_pending) for d in shown.devices} == {
                "cash-desk": ("failed", True),
                "kiosk": ("unheard", False),
            }
            assert not shown.finished
        named = wire.RetryDeployment(devices=["kiosk"])
        assert "has not failed on kiosk" in (await problem("POST", f"{path}/retry", named)).detail
        named = wire.RetryDeployment(devices=["nobody"])
        assert (await problem("POST", f"{path}/retry", named)).status == 400
        named = wire.RetryDeployment(devices=["cash-desk"])
        assert len((await ask("POST", f"{path}/retry", wire.RetriedDeployment, named)).devices) == 1
        audit = await ask("GET", "/audit", wire.AuditList)
        assert [e.subject for e in audit.entries if e.action == "deployment.retry"] == [
            f"{made.id} on cash-desk",
            f"{made.id} on all that failed",
            f"{made.id} on all that failed",
        ]
        await ask("DELETE", path, wire.DeploymentInfo)
        for names in ([], ["cash-desk"]):
            refused = await problem("POST", f"{path}/retry", wire.RetryDeployment(devices=names))
            assert "has been stopped" in refused.detail


async def test_a_deployment_whose_place_a_newer_one_has_taken_is_not_tried_again(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        ask = fleet.operator.ask
        for number, version in enumerate(("1.0", "2.0"), 1):
            fleet.publisher.add_release(version, DATA + version.encode(), sequence=number)
        await fleet.operator.publish(fleet.publisher)
        device = await enrolled_device(fleet, name="cash-desk")
        old, _ = [
            await ask(
                "POST", "/deployments", wire.DeploymentInfo, wire.NewDeployment(target=target, group="/")
            )
            for target in ("app@1.0", "app@2.0")
        ]
        async with device.attached() as link:
            report = Report(
                id="r", deployment=old.id, target=old.target, stage="failed", reason="no", finished=1
            )
            await device.send(link, report)
            await device.next_message(link.frames(), Received)
        path = f"/deployments/{old.id}/retry"
        assert (await ask("POST", path, wire.RetriedDeployment, wire.RetryDeployment())).devices == []
        named = await fleet.operator.problem("POST", path, wire.RetryDeployment(devices=["cash-desk"]))
        assert "does not count for cash-desk" in named.detail


async def test_a_deployment_of_something_unsigned_or_to_nowhere_is_refused(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        fleet.publisher.add_release("1.0", DATA)
        await fleet.operator.publish(fleet.publisher)
        for target, group, why in (
            ("app@2.0", "/", "no signed release"),
            ("app@1.0", "/nowhere", "no group"),
            ("../../etc", "/", "no signed release"),
            ("app@1.0", "nowhere", "not a group path"),
        ):
            body = wire.NewDeployment(target=target, group=group)
            problem = await fleet.operator.problem("POST", "/deployments", body)
            assert problem.status == 400 and why in problem.detail


async def test_a_version_that_two_releases_have_is_not_guessed(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        fleet.publisher.add_release("1.0", DATA)
        target = fleet.publisher.channel["stable/app/1.0/app.bin"]
        fleet.publisher.channel["stable/app/1.0/other.bin"] = target
        await fleet.operator.publish(fleet.publisher)
        problem = await fleet.operator.problem("GET", "/releases/app@1.0")
        assert "could be" in problem.detail and "whole target path" in problem.hint


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    async with open_fleet(tmp_path, publisher) as fleet:
        await fleet.operator.publish(publisher)
        device = await enrolled_device(fleet, name="cash-desk")
        body = wire.NewDeployment(target="app@1.0", group="/")
        order = await fleet.operator.ask("POST", "/deployments", wire.DeploymentInfo, body)
    async with open_fleet(tmp_path, publisher) as fleet:
        status = await fleet.operator.ask("GET", "/status", wire.Status)
        assert (status.releases, status.devices, status.deployments_active) == (1, 1, 1)
        shown = await fleet.operator.ask("GET", f"/deployments/{order.id}", wire.DeploymentDetail)
        assert shown.devices[0].node == device.node
        assert [p.info_hash for p in fleet.service.origin.presences()] == list(publisher.torrents)
