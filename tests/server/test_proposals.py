"""What distribution points find on offer: from their messages to the API."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from serverkit import enrolled_device, open_fleet

from p2pdist.store import proposals
from p2pdist.wire import api as wire
from p2pdist.wire.following import AptSource, Follow, Offer
from p2pdist.wire.messages import DesiredState, Received
from p2pdist.wire.tasks import TaskOffers, TaskResult
from p2pdist.wire.work import decode_work

pytestmark = pytest.mark.slow  # whole servers, their databases and certificates

SOURCE = AptSource(
    url="https://vendor.example/debian",
    suite="stable",
    components=["main"],
    architectures=["amd64"],
    packages=["tool"],
)
OFFER = Offer(
    product="tool",
    version="1:2.0",
    architecture="amd64",
    url="https://vendor.example/debian/pool/tool.deb",
    file="tool.deb",
    size_bytes=7,
    sha256="ab" * 32,
    signed=True,
)


async def test_what_a_point_finds_is_confirmed_once_it_is_a_proposal_and_its_next_run_knows_the_date(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        point = await enrolled_device(fleet, name="branch")
        fleet.publisher.add_grant(point.node, "/", duties=["seed"])
        await fleet.operator.publish(fleet.publisher)
        async with point.attached() as link:
            frames = link.frames()
            await point.send(link, point.heartbeat(name="branch"))
            await point.next_message(frames, DesiredState)
            order = wire.NewTask(work=Follow(source=SOURCE, keys=[b"key"]), nodes=["branch"])
            task = await fleet.operator.ask("POST", "/tasks", wire.TaskInfo, order)
            (assigned,) = (await point.next_message(frames, DesiredState)).assignments
            assert decode_work(assigned.work) == order.work

            for id in ("o1", "o1", "o2"):
                said = TaskOffers(id=id, task=task.id, run=1, date=1_700_000_000, offers=[OFFER])
                await point.send(link, said)
                assert (await point.next_message(frames, Received)).ids == [id]
            await point.send(link, TaskResult(id="r", task=task.id, run=1, outcome="done", finished=1))
            await point.next_message(frames, Received)
            (shown,) = (await fleet.operator.ask("GET", "/proposals", wire.ProposalList)).proposals
            assert (shown.product, shown.version, shown.state, shown.task) == (
                "tool",
                "1:2.0",
                "new",
                task.id,
            )

            await fleet.operator.ask("POST", f"/tasks/{task.id}/run", wire.TaskInfo)
            while not (again := (await point.next_message(frames, DesiredState)).assignments):
                pass
            work = decode_work(again[0].work)
            assert isinstance(work, Follow)
            assert (again[0].run, work.seen) == (2, 1_700_000_000)


async def test_a_proposal_whose_content_is_signed_is_published_and_dropping_is_for_operators(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        order = wire.NewTask(work=Follow(source=SOURCE, keys=[b"key"]), nodes=["server"])
        task = await fleet.operator.ask("POST", "/tasks", wire.TaskInfo, order)
        made = fleet.publisher.add_release("9", b"the content", product="another")
        offer = replace(OFFER, sha256=made.sha256)
        said = TaskOffers(id="o", task=task.id, run=1, offers=[offer])
        await fleet.service.store.write(proposals.record_offers, fleet.service.tasks.node, said, 1)
        (shown,) = (await fleet.operator.ask("GET", "/proposals", wire.ProposalList, state="new")).proposals
        await fleet.operator.publish(fleet.publisher)
        assert (await fleet.operator.ask("GET", "/proposals", wire.ProposalList, state="new")).proposals == []
        (done,) = (
            await fleet.operator.ask("GET", "/proposals", wire.ProposalList, state="published")
        ).proposals
        assert (done.id, done.release) == (shown.id, "stable/another/9/another.bin")
        dropped = await fleet.operator.ask("DELETE", f"/proposals/{shown.id}", wire.ProposalInfo)
        assert dropped.state == "published", "what is signed is signed"
        audit = await fleet.operator.ask("GET", "/audit", wire.AuditList)
        assert audit.entries[0].action == "proposal.drop"


async def test_work_that_nobody_can_do_is_refused_by_the_api(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        for source, keys in ((SOURCE, []), (replace(SOURCE, components=[]), [b"k"])):
            order = wire.NewTask(work=Follow(source=source, keys=keys), nodes=["server"])
            assert (await fleet.operator.problem("POST", "/tasks", order)).title == "usage"
