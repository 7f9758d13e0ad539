"""Content that comes from vendors' mirrors and not from the admin server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio
from serverkit import PATIENCE_S, Fleet, TestDevice, enrolled_device, next_frame, open_fleet

from p2pdist.server.withdrawn import named_artifacts
from p2pdist.swarm.torrents import MadeTorrent
from p2pdist.wire import api as wire
from p2pdist.wire.frames import Announce, Presence, Sources
from p2pdist.wire.messages import DesiredState
from p2pdist.wire.mirroring import ReadMirrors
from p2pdist.wire.tasks import TaskResult
from p2pdist.wire.work import decode_work

pytestmark = pytest.mark.slow  # a whole server

DATA = bytes(range(256)) * 1_000
TARGET = "stable/app/1/app.bin"
MIRRORS = ["https://vendor.example/app.bin"]


def release(fleet: Fleet, version: str = "1", **custom: object) -> MadeTorrent:
    return fleet.publisher.add_release(version, DATA + version.encode(), **{"mirrors": MIRRORS, **custom})


async def publish(fleet: Fleet, *, mirrored: bool = False) -> wire.Published:
    """Publish without any content."""
    return await fleet.operator.ask("POST", "/publications", wire.Published, publication(fleet, mirrored))


def publication(fleet: Fleet, mirrored: bool) -> wire.NewPublication:
    torrents = {str(info_hash): torrent for info_hash, torrent in fleet.publisher.torrents.items()}
    return wire.NewPublication(metadata=fleet.publisher.metadata(), torrents=torrents, mirrored=mirrored)


async def shown(fleet: Fleet) -> wire.ReleaseInfo:
    return await fleet.operator.ask("GET", "/releases/app@1", wire.ReleaseInfo)


async def fetch(fleet: Fleet, *nodes: str, targets: tuple[str, ...] = ("app@1",)) -> wire.TaskInfo:
    body = wire.NewTask(work=ReadMirrors(targets=list(targets)), nodes=list(nodes))
    return await fleet.operator.ask("POST", "/tasks", wire.TaskInfo, body)


async def a_point(fleet: Fleet, name: str = "branch", scope: str = "/", **grant: object) -> TestDevice:
    point = await enrolled_device(fleet, name=name)
    fleet.publisher.add_grant(point.node, scope, **grant)
    return point


async def origin_for(device: TestDevice, made: MadeTorrent) -> tuple[bool, str]:
    """Take part in an artifact's swarm; return the decision on the origin."""
    async with device.attached() as link:
        wanted = Presence(info_hash=made.info_hash, have=0, pieces=4, complete=False)
        await link.send(Announce(role="device", port=7000, artifacts=[wanted]))
        sources = await next_frame(link.frames(), Sources)
    (origin,) = [c for c in sources.candidates if c.role == "origin"]
    return origin.taken, origin.reason


async def test_a_release_with_mirrors_is_published_without_its_content_if_that_is_asked_for(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        release(fleet)
        problem = await fleet.operator.problem("POST", "/publications", publication(fleet, False))
        assert "is not at the server" in problem.detail
        await publish(fleet, mirrored=True)
        assert ((await shown(fleet)).mirrored, (await shown(fleet)).mirrors) == (True, MIRRORS)
        release(fleet, "2", sequence=2, mirrors=[])
        problem = await fleet.operator.problem("POST", "/publications", publication(fleet, True))
        assert "is not at the server" in problem.detail


async def test_it_stays_published_so_and_is_no_damage_also_after_a_restart(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        release(fleet)
        await publish(fleet, mirrored=True)
        await publish(fleet)
        publisher = fleet.publisher
    async with open_fleet(tmp_path, publisher) as fleet:
        known = await shown(fleet)
        assert (known.mirrored, known.problem) == (True, "")
        assert not (await fleet.operator.ask("GET", "/refusals", wire.RefusalList)).refusals


async def test_what_is_uploaded_later_is_served(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = release(fleet)
        await publish(fleet, mirrored=True)
        device = await enrolled_device(fleet)
        assert await origin_for(device, made) == (
            False,
            "its content comes from the vendor's mirrors, which only distribution points read",
        )
        await fleet.operator.upload(made, DATA + b"1")
        assert not (await shown(fleet)).mirrored
        assert (await origin_for(device, made))[0]


async def test_a_device_without_a_point_hears_why_it_does_not_get_it(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        release(fleet)
        await publish(fleet, mirrored=True)
        device = await enrolled_device(fleet)
        async with device.attached():
            explained = await fleet.operator.ask(
                "GET", "/explain", wire.Explanation, device=device.node, target="app@1"
            )
        (origin,) = explained.sources
        assert (origin.role, origin.taken) == ("origin", False)
        assert "vendor's mirrors" in origin.reason


async def test_while_a_point_reads_it_the_server_serves_nothing_of_what_it_has(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = release(fleet)
        point = await a_point(fleet)
        await fleet.operator.publish(fleet.publisher)
        stray = await enrolled_device(fleet, name="stray")
        assert (await origin_for(stray, made))[0]
        async with point.attached() as link:
            frames = link.frames()
            await point.send(link, point.heartbeat(name="branch"))
            assert not (await point.next_message(frames, DesiredState)).prefetch
            made_task = await fetch(fleet, "branch")
            state = await point.next_message(frames, DesiredState)
            assert state.prefetch == [TARGET]
            assert [swarm.split(".")[0] for swarm in state.swarms] == ["stable"]
            work = decode_work(state.assignments[0].work)
            assert work == ReadMirrors(targets=[TARGET], readers=[point.node], meant=[point.node])
            assert not (await origin_for(stray, made))[0]
            assert made.info_hash not in fleet.service.origin.sent()
            await point.send(link, TaskResult(id="r1", task=made_task.id, run=1, outcome="done", finished=1))
            assert not (await point.next_message(frames, DesiredState)).prefetch
        assert (await origin_for(stray, made))[0]


async def test_a_group_stands_for_its_points_and_who_may_not_dial_reads_nothing(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        release(fleet)
        for group in ("/plants", "/plants/north"):
            await fleet.operator.ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path=group))
        points = [await a_point(fleet, "north", "/plants/north"), await a_point(fleet, "all", "/plants")]
        await a_point(fleet, "zone", "/plants/north", dialled=True)
        await a_point(fleet, "elsewhere", "/offices")
        await publish(fleet, mirrored=True)
        both = await fetch(fleet, "/plants")
        assert {node.name for node in both.nodes} == {"north", "all", "zone"}
        assert isinstance(both.work, ReadMirrors)
        assert both.work.readers == sorted(point.node for point in points)
        nearest = await fetch(fleet, "/plants/north/hall")
        assert {node.name for node in nearest.nodes} == {"north", "zone"}


async def test_who_reads_is_found_out_anew_when_a_run_begins(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        release(fleet)
        ask = fleet.operator.ask
        await ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path="/plants"))
        north, hub = await a_point(fleet, "north", "/plants"), await a_point(fleet, "hub", "/offices")
        await publish(fleet, mirrored=True)
        work = ReadMirrors(targets=[TARGET])
        new = wire.NewTask(work=work, nodes=["/plants", "hub"], on_metadata=True)
        made = await ask("POST", "/tasks", wire.TaskInfo, new)
        await has_readers(fleet, made.id, north, hub)

        south = await a_point(fleet, "south", "/plants")
        await publish(fleet, mirrored=True)
        await has_readers(fleet, made.id, north, hub, south)
        shown = await ask("GET", f"/tasks/{made.id}", wire.TaskInfo)
        assert (shown.run, shown.states) == (1, {"waiting": 3})

        fleet.publisher.add_grant(hub.node, "/offices", dialled=True)
        del fleet.publisher.points[f"points/{north.node}.grant"]
        await publish(fleet, mirrored=True)
        shown = await ask("POST", f"/tasks/{made.id}/run", wire.TaskInfo, wire.RunTask())
        assert {node.name for node in shown.nodes} == {"hub", "south"}
        await has_readers(fleet, made.id, south)


async def test_a_run_for_which_nobody_is_left_says_so_and_changes_nothing(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        release(fleet)
        await fleet.operator.ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path="/plants"))
        north = await a_point(fleet, "north", "/plants")
        await publish(fleet, mirrored=True)
        made = await fetch(fleet, "/plants")
        del fleet.publisher.points[f"points/{north.node}.grant"]
        await publish(fleet, mirrored=True)
        problem = await fleet.operator.problem("POST", f"/tasks/{made.id}/run", wire.RunTask())
        assert "no distribution point serves /plants" in problem.detail
        await has_readers(fleet, made.id, north)


async def test_a_run_that_is_due_while_nobody_is_left_is_refused_and_says_why(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        release(fleet)
        ask = fleet.operator.ask
        await ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path="/plants"))
        north = await a_point(fleet, "north", "/plants")
        await publish(fleet, mirrored=True)
        new = wire.NewTask(work=ReadMirrors(targets=[TARGET]), nodes=["/plants"], on_metadata=True)
        made = await ask("POST", "/tasks", wire.TaskInfo, new)
        del fleet.publisher.points[f"points/{north.node}.grant"]
        await publish(fleet, mirrored=True)
        with trio.fail_after(PATIENCE_S):
            while (await ask("GET", f"/tasks/{made.id}", wire.TaskInfo)).run == 0:
                await trio.sleep(0.05)
        (state,) = (await ask("GET", f"/tasks/{made.id}/runs/1", wire.TaskRun)).nodes
        assert (state.node, state.state) == (north.node, "refused")
        assert "no distribution point serves /plants" in state.reason


async def has_readers(fleet: Fleet, task: str, *points: TestDevice) -> None:
    """Wait until a task is for these to read."""
    wanted = sorted(point.node for point in points)
    with trio.fail_after(PATIENCE_S):
        while True:
            shown = await fleet.operator.ask("GET", f"/tasks/{task}", wire.TaskInfo)
            assert isinstance(shown.work, ReadMirrors)
            if shown.work.readers == wanted:
                return
            await trio.sleep(0.05)


async def test_what_cannot_be_read_is_said_at_once(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        release(fleet)
        fleet.publisher.add_release("2", DATA, sequence=2, product="own")
        await a_point(fleet)
        await enrolled_device(fleet, name="laptop")
        await fleet.operator.publish(fleet.publisher)
        for targets, node, said in (
            (["own@2"], "branch", "names no mirrors"),
            (["none@1"], "branch", "no signed release"),
            (["app@1"], "laptop", "none of these nodes may read a mirror"),
        ):
            body = wire.NewTask(work=ReadMirrors(targets=targets), nodes=[node])
            problem = await fleet.operator.problem("POST", "/tasks", body)
            assert said in problem.detail


async def test_the_torrent_of_what_is_no_longer_signed_goes_after_a_week(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = release(fleet)
        await publish(fleet, mirrored=True)
        del fleet.publisher.channel[TARGET], fleet.publisher.torrents[made.info_hash]
        del fleet.publisher.artifacts[made.info_hash]
        await publish(fleet)
        torrent = fleet.service.home.torrent(made.info_hash)
        for days, there in ((1, True), (8, False)):
            named = named_artifacts(fleet.service.repository.export({}))
            assert named is not None
            await fleet.service.withdrawn.collect(named, int(time.time()) + days * 86_400)
            assert torrent.exists() is there
