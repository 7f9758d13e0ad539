"""The driver of a device's deployments, with a real journal and real threads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pdist.agent import deployer as deployer_module
from p2pdist.agent.deployer import Deployer, DeployerSettings, open_deployer, verify_artifact
from p2pdist.agent.journal import Journal
from p2pdist.agent.ports import ContentStatus
from p2pdist.errors import TrustError, Unavailable, UsageError
from p2pdist.install.installers import InstallResult, install
from p2pdist.install.platform import Machine
from p2pdist.trust.catalog import CommandRecipe, DebRecipe
from p2pdist.wire.messages import Progress

Node = Any
LINUX = Machine(platform="linux-x86_64")
DATA = b"the artifact" * 1_000


@asynccontextmanager
async def running(node: Node, **settings: Any) -> AsyncIterator[Deployer]:
    chosen = DeployerSettings(
        fleet=node.fleet, layout=node.layout, machine=LINUX, status_every_s=0.01, **settings
    )
    async with (
        open_deployer(
            chosen,
            node.base / "journal",
            content=node.content,
            outbox=node.outbox,
            installer=node.installer,
        ) as deployer,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(deployer.run)
        deployer.certificate_changed([node.swarm])
        yield deployer
        nursery.cancel_scope.cancel()


async def test_a_deployment_is_fetched_verified_installed_and_reported(node: Node) -> None:
    node.installer = install
    recipe = CommandRecipe(arguments=["sh", "-c", "cat {artifact} > $P2PDIST_ROOT/out; echo done"])
    release = node.release(DATA, recipe=recipe)
    async with running(node) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        await node.outbox.wait(lambda: "want app" in node.log)
        node.content.arrive(release, DATA)
        report = await node.outbox.report("installed")
        assert (report.exit_code, report.output) == (0, b"done\n")
        assert deployer.installed == {"stable/app": 1}
        assert deployer.needed() == {release.info_hash}
    assert (node.base / "root/out").read_bytes() == DATA


async def test_progress_is_told_while_it_is_fetched(node: Node) -> None:
    release = node.release(DATA)
    node.content.statuses[release.info_hash] = ContentStatus(
        fraction=0.25, complete=False, rate_bytes_per_s=1_000, sources=3
    )

    def told() -> list[Progress]:
        return [m for m in node.outbox.sent if isinstance(m, Progress) and m.fraction == 0.25]

    async with running(node, progress_every_s=0.01) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        await node.outbox.wait(told)
    assert (told()[0].stage, told()[0].rate_bytes_per_s, told()[0].sources) == ("fetching", 1_000, 3)


async def test_an_artifact_that_is_not_what_was_signed_is_refused_and_deleted(node: Node) -> None:
    release = node.release(DATA)
    async with running(node) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        node.content.arrive(release, DATA[:-1] + b"!")
        await node.outbox.wait(node.outbox.refusals)
        await node.outbox.wait(lambda: "delete" in node.log)
    assert node.outbox.refusals()[0].kind == "content"
    assert not node.content.path(release.info_hash).exists()
    assert node.installer.attempts == []


async def test_a_release_that_this_machine_cannot_install_is_refused_before_it_is_wanted(node: Node) -> None:
    release = node.release(DATA, recipe=DebRecipe(package="xx", version="1", architecture="all"))
    async with running(node) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        report = await node.outbox.report("refused")
    assert "has no dpkg" in report.reason
    assert node.outbox.refusals()[0].kind == "platform"
    assert "want app" not in node.log


async def test_a_failure_brings_exit_code_and_output_back(node: Node) -> None:
    release = node.release(DATA)
    node.installer.outcome = InstallResult(exit_code=4, output=b"no", failure="the command failed")
    node.content.arrive(release, DATA)
    async with running(node) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        report = await node.outbox.report("failed")
        assert (report.reason, report.exit_code, report.output) == ("the command failed", 4, b"no")
        node.installer.outcome = InstallResult(exit_code=0)
        deployer.state_changed(node.desired(release, retry=1), node.catalog(release))
        await node.outbox.report("installed")
    assert node.installer.attempts == ["d-app-1.1", "d-app-1.2"]


@pytest.mark.parametrize("error", [TrustError("bad inside"), UsageError("bad recipe")])
async def test_an_installer_that_refuses_is_a_failure(node: Node, error: Exception) -> None:
    release = node.release(DATA)
    node.installer.outcome = error
    node.content.arrive(release, DATA)
    async with running(node) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        assert (await node.outbox.report("failed")).reason == str(error)


async def test_an_installer_that_cannot_start_now_is_asked_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.core.plan._AGAIN_FIRST_S", 0.01)
    release = node.release(DATA)
    node.installer.outcome = Unavailable("the disk is full")
    node.content.arrive(release, DATA)
    async with running(node) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        await node.installer.started.wait()
        node.installer.outcome = InstallResult()
        await node.outbox.report("installed")
    assert set(node.installer.attempts) == {"d-app-1.1"}
    assert len(node.outbox.reports()) == 1


async def test_a_content_plane_that_rests_is_asked_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.core.fetches._AGAIN_FIRST_S", 0.01)
    release = node.release(DATA)
    node.content.unavailable = True
    async with running(node) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        await node.outbox.wait(lambda: any(p.detail == "the content plane rests" for p in node.outbox.sent))
        node.content.unavailable = False
        node.content.arrive(release, DATA)
        await node.outbox.report("installed")


async def test_a_missing_swarm_leads_to_a_renewal_and_then_to_the_fetch(node: Node) -> None:
    release = node.release(DATA)
    node.content.arrive(release, DATA)
    async with running(node) as deployer:
        deployer.certificate_changed([])
        deployer.state_changed(node.desired(release), node.catalog(release))
        await node.outbox.wait(lambda: node.outbox.renewals)
        deployer.certificate_changed([node.swarm])
        await node.outbox.report("installed")


async def test_reports_wait_for_confirmation_across_restarts(node: Node) -> None:
    release = node.release(DATA)
    node.content.arrive(release, DATA)
    async with running(node) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        report = await node.outbox.report("installed")
        deployer.refuse("stranger", "10.0.0.9", "no certificate")
        await node.outbox.wait(node.outbox.refusals)
    node.outbox.sent.clear()
    async with running(node) as deployer:
        assert await node.outbox.report("installed") == report
        node.outbox.sent.clear()
        deployer.linked()
        assert await node.outbox.report("installed") == report
        await node.outbox.wait(node.outbox.refusals)
        deployer.received([report.id, node.outbox.refusals()[0].id])
        await wait_all_tasks_blocked(0.05)
    node.outbox.sent.clear()
    async with running(node):
        await wait_all_tasks_blocked(0.05)
        assert node.outbox.sent == []


async def test_a_stop_in_the_middle_of_an_installation_is_resumed_as_the_same_attempt(node: Node) -> None:
    release = node.release(DATA)
    node.content.arrive(release, DATA)
    node.installer.may_end = trio.Event()
    async with running(node) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        await node.installer.started.wait()
    node.installer.may_end = None
    async with running(node):
        await node.outbox.report("installed")
    assert node.installer.attempts == ["d-app-1.1", "d-app-1.1"]


async def test_a_resumed_installation_of_bytes_that_went_bad_meanwhile_is_not_carried_on(node: Node) -> None:
    release = node.release(DATA)
    node.content.arrive(release, DATA)
    node.installer.may_end = trio.Event()
    async with running(node) as deployer:
        deployer.state_changed(node.desired(release), node.catalog(release))
        await node.installer.started.wait()
    node.content.arrive(release, b"altered")
    async with running(node):
        await node.outbox.wait(node.outbox.refusals)
    assert node.installer.attempts == ["d-app-1.1"]


class SlowDisk:
    """A journal in memory that is full for a while, and writes into the node's log."""

    def __init__(self, log: list[str], *, refusals: int = 0) -> None:
        self.log = log
        self.refusals = refusals
        self.stages: list[str] = []

    def apply(self, changes: Mapping[str, bytes | None]) -> None:
        if self.refusals:
            self.refusals -= 1
            self.log.append("full")
            raise Unavailable("the disk is full")
        for key, value in changes.items():
            if key.startswith("task/") and value is not None:
                for stage in ("fetching", "verifying", "installing", "installed"):
                    if b"\xa5stage" + bytes([0xA0 + len(stage)]) + stage.encode() in value:
                        self.log.append(f"journal {stage}")


async def test_nothing_is_done_before_it_is_written_down(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployer_module, "_JOURNAL_AGAIN_S", 0.001)
    release = node.release(DATA)
    node.content.arrive(release, DATA)
    journal: Any = SlowDisk(node.log, refusals=5)
    settings = DeployerSettings(fleet=node.fleet, layout=node.layout, status_every_s=0.01)
    deployer = Deployer(
        settings, LINUX, journal, {}, content=node.content, outbox=node.outbox, installer=node.installer
    )
    deployer.certificate_changed([node.swarm])
    deployer.state_changed(node.desired(release), node.catalog(release))
    async with trio.open_nursery() as nursery:
        await nursery.start(deployer.run)
        await node.outbox.report("installed")
        nursery.cancel_scope.cancel()
    assert node.log == [
        *["full"] * 5,
        "journal fetching",
        "want app",
        "journal verifying",
        "journal installing",
        "install app",
        "journal installed",
        "report installed",
    ]


async def test_a_journal_in_use_or_damaged_stops_the_start(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.agent.journal._BUSY_S", 0.01)
    other = Journal(node.base / "journal")
    with pytest.raises(Unavailable):
        async with running(node):
            pass
    other.close()
    for path in node.base.glob("journal*"):
        path.unlink()
    (node.base / "journal").write_bytes(b"junk" * 1_000)
    with pytest.raises(UsageError):
        async with running(node):
            pass


async def test_a_journal_with_a_damaged_record_stops_the_start_and_says_what_to_do(node: Node) -> None:
    journal = Journal(node.base / "journal")
    journal.apply({"task/d1": b"junk"})
    journal.close()
    with pytest.raises(UsageError, match=r"journal is damaged.*move it away"):
        async with running(node):
            pass


async def test_verification_tells_other_bytes_other_lengths_and_no_file_apart(
    node: Node, tmp_path: Path
) -> None:
    release = node.release(DATA)
    path = tmp_path / "file"
    with pytest.raises(Unavailable):
        await trio.to_thread.run_sync(verify_artifact, path, release)
    for content, message in ((DATA[:-1], "bytes are here"), (DATA[:-1] + b"!", "SHA-256")):
        path.write_bytes(content)
        with pytest.raises(TrustError, match=message):
            await trio.to_thread.run_sync(verify_artifact, path, release)
    path.write_bytes(DATA)
    await trio.to_thread.run_sync(verify_artifact, path, release)
