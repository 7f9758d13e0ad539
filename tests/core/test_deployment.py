"""The device's deployment machine, as scripts of events and the commands that they must lead to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgpack
import msgspec
import pytest

from p2pdist import limits
from p2pdist.core.deployment import Deployments
from p2pdist.core.deployment_model import (
    DeploymentSettings,
    Install,
    Moment,
    RenewCertificate,
    SendProgress,
    SendRefusal,
    SendReport,
    Task,
    VerifyArtifact,
)
from p2pdist.core.fetches import Fetch, ForgetArtifact, StopFetching
from p2pdist.errors import PeerError, UsageError
from p2pdist.ids import ChannelName, FleetName, InfoHash, ProductName, TargetPath, swarm_of
from p2pdist.trust.catalog import Catalog, CommandRecipe, Release
from p2pdist.wire.messages import Deployment, DesiredState, Progress, Refusal, Report

FLEET = FleetName("acme")
STABLE = swarm_of(ChannelName("stable"), FLEET)


def release(
    product: str = "app",
    sequence: int = 1,
    *,
    platform: str = "any",
    prerequisites: tuple[str, ...] = (),
    rollback_from: int | None = None,
    content: str = "",
) -> Release:
    digest = f"{abs(hash((product, sequence, content))) % 16**32:064x}"
    return Release(
        target=TargetPath(f"stable/{product}/{sequence}/{product}.bin"),
        channel=ChannelName("stable"),
        product=ProductName(product),
        version=str(sequence),
        sequence=sequence,
        platform=platform,
        length=1_000,
        sha256=digest,
        info_hash=InfoHash(digest),
        recipe=CommandRecipe(arguments=["{artifact}"]),
        prerequisites=prerequisites,
        rollback_from=rollback_from,
    )


def catalog_of(*releases: Release, left_out: Mapping[str, str] | None = None) -> Catalog:
    return Catalog(
        releases={r.target: r for r in releases},
        grants={},
        channels=(ChannelName("stable"),),
        versions={"root": 1},
        expires=2**40,
        left_out=left_out or {},
    )


def objection(candidate: Release) -> str:
    return "" if candidate.platform in ("any", "linux") else f"it is for {candidate.platform}"


class Device:
    """A machine with its journal and its clock; ``do`` drains it into short words."""

    def __init__(self, **settings: float) -> None:
        self.settings = DeploymentSettings(fleet=FLEET, objection=objection, **settings)  # type: ignore[arg-type]
        self.journal: dict[str, bytes] = {}
        self.now = Moment(unix_s=1_000_000.0, monotonic_s=50.0)
        self.revision = 0
        self.reports: list[Report] = []
        self.refusals: list[Refusal] = []
        self.progress: list[Progress] = []
        self.machine = Deployments(self.settings, self.journal, now=self.now)

    def wait(self, seconds: float) -> None:
        self.now = Moment(unix_s=self.now.unix_s + seconds, monotonic_s=self.now.monotonic_s + seconds)

    def want(self, *wanted: Release, names: Iterable[str] | None = None, retry: int = 0) -> list[str]:
        self.revision += 1
        ids = list(names) if names is not None else [f"d-{r.product}-{r.sequence}" for r in wanted]
        deployments = [
            Deployment(id=name, target=r.target, order=order, retry=retry)
            for order, (name, r) in enumerate(zip(ids, wanted, strict=True))
        ]
        self.machine.handle_desired_state(
            DesiredState(revision=self.revision, group="/", swarms=[STABLE], deployments=deployments),
            self.now,
        )
        return self.do()

    def learn(self, *releases: Release, left_out: Mapping[str, str] | None = None) -> list[str]:
        self.machine.handle_catalog(catalog_of(*releases, left_out=left_out), self.now)
        return self.do()

    def admit(self, *swarms: str) -> list[str]:
        self.machine.handle_certificate(swarms or (STABLE,), self.now)
        return self.do()

    def fetched(self, r: Release) -> list[str]:
        self.machine.handle_content_finished(r.info_hash, self.now)
        return self.do()

    def verified(self, attempt: str) -> list[str]:
        self.machine.handle_artifact_verified(attempt, self.now)
        return self.do()

    def installed(self, attempt: str) -> list[str]:
        self.machine.handle_installed(attempt, exit_code=0, output=b"fine", now=self.now)
        return self.do()

    def failed(self, attempt: str, reason: str = "it broke") -> list[str]:
        self.machine.handle_install_failed(attempt, reason, exit_code=3, output=b"oh", now=self.now)
        return self.do()

    def tick(self, seconds: float = 0.0) -> list[str]:
        self.wait(seconds)
        self.machine.handle_tick(self.now)
        return self.do()

    def restart(self) -> list[str]:
        """What kill -9 leaves: the journal, and nothing else."""
        self.machine = Deployments(self.settings, dict(self.journal), now=self.now)
        return self.do()

    def save(self) -> None:
        for key, record in self.machine.take_changes().items():
            if record is None:
                del self.journal[key]
            else:
                self.journal[key] = record

    def do(self) -> list[str]:
        self.save()
        words = []
        while (command := self.machine.poll_command()) is not None:
            match command:
                case Fetch(release=r):
                    words.append(f"fetch {r.product} {r.sequence}")
                case StopFetching():
                    words.append("stop")
                case ForgetArtifact():
                    words.append("forget")
                case VerifyArtifact(attempt=attempt):
                    words.append(f"verify {attempt}")
                case Install(attempt=attempt):
                    words.append(f"install {attempt}")
                case RenewCertificate(swarm=swarm):
                    words.append(f"renew {swarm}")
                case SendReport(report=report):
                    self.reports.append(report)
                    words.append(f"report {report.deployment} {report.stage}")
                case SendRefusal(refusal=refusal):
                    self.refusals.append(refusal)
                    words.append(f"refusal {refusal.kind}")
                case SendProgress(progress=progress):
                    self.progress.append(progress)
        deadline = self.machine.next_deadline()
        assert deadline is None or deadline > self.now.monotonic_s, (
            "it would be called again at once, for ever"
        )
        return words

    def task(self, deployment: str) -> Task:
        return next(task for task in self.machine.tasks() if task.deployment == deployment)


def device_with(*releases: Release, **settings: float) -> Device:
    device = Device(**settings)
    device.learn(*releases)
    device.admit()
    return device


def install_all(device: Device, r: Release, deployment: str) -> None:
    device.fetched(r)
    device.verified(f"{deployment}.1")
    device.installed(f"{deployment}.1")


# The way that everything should go -----------------------------------------------------------------


def test_a_deployment_is_fetched_verified_installed_and_reported() -> None:
    app = release()
    device = device_with(app)
    assert device.want(app) == ["fetch app 1"]
    device.wait(7)
    assert device.fetched(app) == ["verify d-app-1.1"]
    assert device.verified("d-app-1.1") == ["install d-app-1.1"]
    assert device.installed("d-app-1.1") == ["report d-app-1 installed"]
    report = device.reports[-1]
    assert (report.exit_code, report.output, report.seconds) == (0, b"fine", 7.0)
    assert device.machine.installed == {"stable/app": 1}
    assert [p.stage for p in device.progress] == ["fetching", "verifying", "installing", "installed"]


def test_a_deployment_whose_target_is_not_signed_yet_waits_for_the_metadata() -> None:
    app = release()
    device = Device()
    device.admit()
    assert device.want(app) == []
    assert device.task("d-app-1").reason == "there is no valid signed metadata here yet"
    assert device.learn() == []
    assert device.task("d-app-1").reason == "the signed metadata here does not name it yet"
    assert device.learn(app) == ["fetch app 1"]


def test_a_certificate_without_the_swarm_is_renewed_and_asked_for_again_after_a_minute() -> None:
    app = release()
    device = Device()
    device.learn(app)
    assert device.want(app) == [f"renew {STABLE}"]
    assert device.task("d-app-1").stage == "waiting"
    assert device.tick(30) == []
    assert device.tick(31) == [f"renew {STABLE}"]
    assert device.admit("another") == [f"renew {STABLE}"]
    assert device.admit("another") == [], "a new certificate that does not help must not lead to the next"
    assert device.admit() == ["fetch app 1"]
    assert device.machine.next_deadline() is None


def test_what_is_installed_already_is_reported_without_work() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    install_all(device, app, "d-app-1")
    assert device.want(app, app, names=["d-app-1", "again"]) == ["report again installed"]
    assert device.task("again").reason == "it was installed already"


def test_prerequisites_are_waited_for_with_the_reason() -> None:
    app = release("app", 2, prerequisites=("base>=3", "other>=1"))
    base, other = release("base", 3), release("other", 1)
    device = device_with(app, base, other)
    assert device.want(app, base, other) == ["fetch base 3", "fetch other 1"]
    assert device.task("d-app-2").reason == "needs base>=3 (not installed), other>=1 (not installed) first"
    install_all(device, base, "d-base-3")
    assert device.task("d-app-2").reason == "needs other>=1 (not installed) first"
    device.fetched(other)
    device.verified("d-other-1.1")
    assert device.installed("d-other-1.1") == ["fetch app 2", "report d-other-1 installed"]


def test_only_one_release_is_in_hand_while_others_are_fetched() -> None:
    first, second = release("first"), release("second")
    device = device_with(first, second)
    assert device.want(first, second) == ["fetch first 1", "fetch second 1"]
    assert device.fetched(second) == ["verify d-second-1.1"]
    assert device.fetched(first) == []
    assert device.task("d-first-1").reason == "fetched; another release is being installed"
    device.verified("d-second-1.1")
    assert device.installed("d-second-1.1") == ["verify d-first-1.1", "report d-second-1 installed"]


def test_no_more_artifacts_than_the_limit_are_fetched_at_once() -> None:
    many = [release(f"p{number}") for number in range(limits.FETCHES_ACTIVE_MAX + 2)]
    device = device_with(*many)
    assert len(device.want(*many)) == limits.FETCHES_ACTIVE_MAX
    assert device.fetched(many[0]) == ["verify d-p0-1.1", "fetch p4 1"]


def test_the_order_of_the_admin_server_decides_what_is_installed_first() -> None:
    first, second = release("first"), release("second")
    device = device_with(first, second)
    device.machine.handle_desired_state(
        DesiredState(
            revision=1,
            group="/",
            swarms=[],
            deployments=[
                Deployment(id="late", target=first.target, order=9),
                Deployment(id="soon", target=second.target, order=1),
            ],
        ),
        device.now,
    )
    assert device.do() == ["fetch second 1", "fetch first 1"]


# What is refused -----------------------------------------------------------------------------------


def test_a_release_for_another_platform_is_refused_before_a_byte_is_fetched() -> None:
    app = release(platform="windows")
    device = device_with(app)
    assert sorted(device.want(app)) == ["forget", "refusal platform", "report d-app-1 refused"]
    assert device.refusals[-1].kind == "platform"
    assert device.reports[-1].reason == "it is for windows"
    assert device.task("d-app-1").stage == "refused"


def test_an_older_release_is_refused_as_a_rollback() -> None:
    old, new = release(sequence=1), release(sequence=2)
    device = device_with(old, new)
    device.want(new)
    install_all(device, new, "d-app-2")
    words = device.want(new, old)
    assert not any(word.startswith("fetch") for word in words)
    assert device.refusals[-1].kind == "rollback"
    assert device.reports[-1].stage == "refused"
    assert "older than 2" in device.reports[-1].reason


def test_a_signed_permission_lets_a_device_go_back_exactly_as_far_as_it_says() -> None:
    back = release(sequence=1, rollback_from=2)
    newest = release(sequence=3)
    for highest, allowed in ((release(sequence=2), True), (newest, False)):
        device = device_with(back, highest)
        device.want(highest)
        install_all(device, highest, f"d-app-{highest.sequence}")
        words = device.want(back)
        assert ("fetch app 1" in words) is allowed, words


def test_a_refused_older_release_is_installed_once_metadata_that_permits_it_arrives() -> None:
    top = release(sequence=2)
    device = device_with(release(sequence=1), top)
    device.want(top)
    install_all(device, top, "d-app-2")
    back = release(sequence=1, rollback_from=2)
    device.want(back)
    assert device.reports[-1].stage == "refused"
    assert "fetch app 1" in device.learn(back, top)
    device.fetched(back)
    device.verified("d-app-1.2")
    device.installed("d-app-1.2")
    assert device.reports[-1].stage == "installed"
    assert device.reports[-1].deployment == "d-app-1"


def test_after_a_signed_rollback_the_floor_stays_where_it_was() -> None:
    back, middle, top = release(sequence=1, rollback_from=3), release(sequence=2), release(sequence=3)
    device = device_with(back, middle, top)
    device.want(top)
    install_all(device, top, "d-app-3")
    device.want(back)
    install_all(device, back, "d-app-1")
    assert device.machine.installed == {"stable/app": 1}
    assert device.machine.floor("stable/app") == 3
    device.want(middle)
    assert device.refusals[-1].kind == "rollback"
    assert device.want(top) == ["forget", "fetch app 3"]


def test_a_release_that_vanishes_from_the_signed_metadata_is_refused() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    words = device.learn()
    assert "forget" in words
    assert (device.refusals[-1].kind, device.reports[-1].stage) == ("metadata", "refused")
    assert "revoked" in device.reports[-1].reason


def test_a_channel_that_is_not_believed_makes_its_deployments_wait_and_not_fail() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    assert device.learn(left_out={"channel-stable": "it expired"}) == ["stop"]
    assert device.task("d-app-1").reason == "channel stable is not believed now: it expired"
    assert device.learn(app) == ["fetch app 1"]


def test_a_target_that_is_signed_but_makes_no_sense_is_refused() -> None:
    app = release()
    device = device_with()
    device.want(app)
    device.learn(left_out={app.target: "its recipe is of an unknown kind"})
    assert device.reports[-1].stage == "refused"
    assert "unknown kind" in device.reports[-1].reason


def test_a_prerequisite_that_nobody_understands_is_refused() -> None:
    app = release(prerequisites=("base=3",))
    device = device_with(app)
    device.want(app)
    assert device.reports[-1].stage == "refused"


# Newer and older -----------------------------------------------------------------------------------


def test_a_newer_release_supersedes_an_older_one_that_has_not_begun() -> None:
    old, new = release(sequence=1), release(sequence=2)
    device = device_with(old, new)
    device.want(old)
    device.fetched(old)
    words = device.want(old, new)
    assert "fetch app 2" in words
    device.verified("d-app-1.1")
    assert device.task("d-app-1").reason == f"superseded by {new.target}, which is newer"
    device.fetched(new)
    device.verified("d-app-2.1")
    device.installed("d-app-2.1")
    assert device.task("d-app-1").stage == "refused"
    assert device.task("d-app-1").reason.startswith("superseded: ")
    assert device.refusals == [], "nobody did anything wrong"


def test_an_older_release_goes_on_when_the_newer_one_fails() -> None:
    old, new = release(sequence=1), release(sequence=2)
    device = device_with(old, new)
    assert device.want(old, new) == ["fetch app 2"]
    device.fetched(new)
    device.verified("d-app-2.1")
    assert device.failed("d-app-2.1") == ["stop", "fetch app 1", "report d-app-2 failed"]


def test_an_older_release_is_installed_first_when_the_newer_one_needs_it() -> None:
    old, new = release(sequence=1), release(sequence=2, prerequisites=("app>=1",))
    device = device_with(old, new)
    assert device.want(new, old) == ["fetch app 1"]
    install_all(device, old, "d-app-1")
    assert device.task("d-app-2").stage == "fetching"


def test_an_installation_that_has_begun_is_not_superseded() -> None:
    old, new = release(sequence=1), release(sequence=2)
    device = device_with(old, new)
    device.want(old)
    device.fetched(old)
    device.verified("d-app-1.1")
    device.want(old, new)
    assert device.task("d-app-1").stage == "installing"
    device.fetched(new)
    assert device.installed("d-app-1.1")[0] == "verify d-app-2.1"


def test_a_signed_way_back_supersedes_the_release_that_it_leads_back_from() -> None:
    bad, back = release(sequence=5), release(sequence=4, rollback_from=5)
    device = device_with(bad, back)
    assert device.want(bad, back) == ["fetch app 4"]


def test_a_deployment_that_is_withdrawn_is_dropped_without_a_report() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    assert device.want() == ["forget"]
    assert (device.machine.tasks(), device.reports) == ((), [])


def test_a_deployment_that_is_withdrawn_while_it_installs_ends_with_a_report() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.fetched(app)
    device.verified("d-app-1.1")
    assert device.want() == []
    assert device.installed("d-app-1.1") == ["stop", "report d-app-1 installed"]
    assert device.machine.tasks() == ()


def test_a_deployment_that_is_withdrawn_while_it_is_verified_is_not_installed() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.fetched(app)
    device.want()
    assert device.verified("d-app-1.1") == ["forget"]


def test_an_artifact_that_a_new_deployment_needs_is_not_thrown_away_with_the_old_one() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    install_all(device, app, "d-app-1")
    assert device.want(app, names=["another"]) == ["report another installed"]
    assert device.task("another").serves


def test_an_older_desired_state_that_arrives_late_changes_nothing() -> None:
    app = release()
    device = device_with(app)
    late = DesiredState(revision=1, group="/", swarms=[], deployments=[])
    device.revision = 4
    device.want(app)
    device.machine.handle_desired_state(late, device.now)
    assert device.do() == []
    assert device.task("d-app-1").stage == "fetching"


def test_bytes_that_were_signed_anew_while_the_old_ones_were_verified_are_fetched_first() -> None:
    before, after = release(content="a"), release(content="b")
    device = device_with(before)
    device.want(before)
    device.fetched(before)
    device.learn(after)
    assert device.verified("d-app-1.1") == ["forget", "fetch app 1"]
    assert device.task("d-app-1").release == after


# Bad bytes and full disks ---------------------------------------------------------------------------


def test_a_bad_artifact_is_fetched_again_with_growing_pauses_and_then_given_up() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    pauses = []
    for attempt in range(3):
        device.fetched(app)
        device.machine.handle_artifact_mismatched("d-app-1.1", "its hash is wrong", device.now)
        words = device.do()
        assert "forget" in words
        if attempt < 2:
            deadline = device.machine.next_deadline()
            assert deadline is not None
            pause = deadline - device.now.monotonic_s
            pauses.append(pause)
            device.machine.handle_received([r.id for r in device.refusals], device.now)
            assert "fetch app 1" in device.tick(pause)
    assert pauses == [5.0, 10.0]
    assert device.reports[-1].stage == "failed"
    assert device.reports[-1].reason == "its hash is wrong; given up after 3 attempts"
    assert {r.kind for r in device.refusals} == {"content"}


def test_each_source_of_bad_bytes_is_reported_once() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    for source in ("origin", "origin", "point", "origin"):
        device.machine.handle_content_refused(app.info_hash, source, "a piece is wrong", device.now)
        device.do()
    assert [r.subject for r in device.refusals] == [f"{app.target} from origin", f"{app.target} from point"]
    assert device.task("d-app-1").reason == "a piece is wrong"


def test_sources_with_nothing_but_bad_bytes_make_a_failure_that_good_bytes_turn_around() -> None:
    app = release()
    device = device_with(app, content_patience_s=60.0)
    device.want(app)
    device.machine.handle_content_refused(app.info_hash, "origin", "a piece is wrong", device.now)
    device.do()
    assert "report d-app-1 failed" in device.tick(60)
    assert device.task("d-app-1").stage == "failed"
    device.machine.handle_received([r.id for r in device.reports + device.refusals], device.now)
    assert device.tick(60) == []
    assert device.fetched(app) == ["verify d-app-1.1"]
    device.verified("d-app-1.1")
    assert device.installed("d-app-1.1") == ["report d-app-1 installed"]


def test_good_bytes_in_between_keep_a_fetch_from_failing() -> None:
    app = release()
    device = device_with(app, content_patience_s=60.0)
    device.want(app)
    for step in range(1, 6):
        device.machine.handle_content_refused(app.info_hash, "origin", "a piece is wrong", device.now)
        device.tick(40)
        device.machine.handle_content_progressed(
            app.info_hash, fraction=step / 10, rate_bytes_per_s=1, sources=1, now=device.now
        )
        device.do()
    assert device.task("d-app-1").stage == "fetching"


def test_a_full_disk_pauses_the_fetch_and_it_goes_on_by_itself() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.machine.handle_storage_failed(app.info_hash, "no space left", device.now)
    assert device.do() == []
    assert device.task("d-app-1").reason == "no space left"
    assert device.tick(5) == ["fetch app 1"]


def test_content_that_finishes_although_the_disk_was_full_a_moment_ago_is_taken_at_once() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.machine.handle_storage_failed(app.info_hash, "no space left", device.now)
    device.do()
    assert device.fetched(app) == ["verify d-app-1.1"]


def test_late_news_of_content_that_was_thrown_away_is_not_believed() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.fetched(app)
    device.machine.handle_artifact_mismatched("d-app-1.1", "its hash is wrong", device.now)
    device.do()
    assert device.fetched(app) == []
    assert "fetch app 1" in device.tick(5)
    assert device.fetched(app) == ["verify d-app-1.1"]


def test_an_installer_that_cannot_start_is_asked_again_later_with_the_artifact_kept() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.fetched(app)
    device.verified("d-app-1.1")
    device.machine.handle_install_deferred("d-app-1.1", "no space left", device.now)
    assert device.do() == []
    assert device.task("d-app-1").reason == "no space left"
    assert device.tick(5) == ["verify d-app-1.1"]


def test_a_failed_installation_is_not_repeated_until_somebody_asks() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.fetched(app)
    device.verified("d-app-1.1")
    assert device.failed("d-app-1.1", "the health check failed") == ["stop", "report d-app-1 failed"]
    assert (device.reports[-1].exit_code, device.reports[-1].output) == (3, b"oh")
    device.machine.handle_received([device.reports[-1].id], device.now)
    for _ in range(5):
        assert device.tick(3_600) == []
        assert device.restart() == []
        assert device.learn(app) == []
        assert device.admit() == []
    assert device.want(app, retry=1) == ["fetch app 1"]
    assert device.fetched(app) == ["verify d-app-1.2"]


def test_a_try_that_was_asked_for_once_is_made_once_also_across_restarts() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.fetched(app)
    device.verified("d-app-1.1")
    device.failed("d-app-1.1", "no")
    assert device.reports[-1].retry == 0
    device.want(app, retry=1)
    device.restart()
    device.learn(app)
    device.admit()
    device.want(app, retry=1)
    device.fetched(app)
    device.verified("d-app-1.2")
    device.failed("d-app-1.2", "no again")
    assert (device.reports[-1].reason, device.reports[-1].retry) == ("no again", 1)
    for retry in (1, 0, 1):
        assert device.want(app, retry=retry) == []
    assert device.want(app, retry=2) == ["fetch app 1"]


def test_what_was_refused_is_judged_again_when_somebody_asks() -> None:
    app = release(platform="windows")
    device = device_with(app)
    device.want(app)
    assert device.task("d-app-1").stage == "refused"
    assert "report d-app-1 refused" in device.want(app, retry=1)
    assert device.reports[-1].retry == 1


def test_what_is_installed_or_under_way_is_not_tried_again() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    assert device.want(app, retry=1) == []
    device.fetched(app)
    device.verified("d-app-1.1")
    assert device.want(app, retry=2) == []
    assert device.failed("d-app-1.1", "no")[-1] == "report d-app-1 failed"
    assert device.reports[-1].retry == 2, "it was under way when somebody asked: this was the try"
    assert device.want(app, retry=2) == []


def test_a_journal_from_before_there_were_retries_is_taken_over() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.fetched(app)
    device.verified("d-app-1.1")
    device.failed("d-app-1.1", "no")
    for key, record in device.journal.items():
        if key.startswith(("task/", "report/")):
            fields = msgpack.unpackb(record)
            assert fields.pop("retry") == 0
            device.journal[key] = msgpack.packb(fields)
    device.restart()
    device.learn(app)
    device.admit()
    assert device.task("d-app-1").stage == "failed"
    assert device.want(app, retry=1) == ["fetch app 1"]


# Reports and restarts -------------------------------------------------------------------------------


def test_reports_are_repeated_with_growing_pauses_and_across_restarts_until_confirmed() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    install_all(device, app, "d-app-1")
    assert device.tick(15) == ["report d-app-1 installed"]
    assert device.tick(15) == []
    assert device.tick(15) == ["report d-app-1 installed"]
    assert "report d-app-1 installed" in device.restart()
    device.machine.handle_linked(device.now)
    assert device.do() == ["report d-app-1 installed"]
    device.machine.handle_received([device.reports[-1].id, "unknown"], device.now)
    assert device.do() == []
    assert device.restart() == []
    assert {r.id for r in device.reports} == {device.reports[0].id}


def test_a_report_of_a_withdrawn_deployment_is_still_delivered() -> None:
    app = release(platform="windows")
    device = device_with(app)
    device.want(app)
    device.want()
    assert "report d-app-1 refused" in device.restart()


def test_a_restart_in_the_middle_of_an_installation_verifies_afresh_and_resumes_the_same_attempt() -> None:
    app, other = release(), release("other")
    device = device_with(app, other)
    device.want(other, app)
    device.fetched(app)
    device.verified("d-app-1.1")
    assert device.restart() == ["verify d-app-1.1", "fetch app 1"]
    device.learn(app, other)
    device.admit()
    assert device.verified("d-app-1.1") == ["install d-app-1.1"]


def test_what_was_begun_is_resumed_although_it_was_revoked_and_superseded_meanwhile() -> None:
    app, newer = release(sequence=1), release(sequence=2)
    device = device_with(app)
    device.want(app)
    device.fetched(app)
    device.verified("d-app-1.1")
    device.restart()
    device.learn(newer)
    device.admit()
    device.want(newer)
    assert device.verified("d-app-1.1") == ["install d-app-1.1"]
    assert "report d-app-1 installed" in device.installed("d-app-1.1")


def test_a_restart_in_the_middle_of_a_fetch_fetches_on() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    assert device.restart() == []
    device.learn(app)
    assert device.admit() == ["fetch app 1"]


def test_an_installed_artifact_is_served_again_after_a_restart_while_it_is_signed() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    install_all(device, app, "d-app-1")
    device.restart()
    assert "fetch app 1" in device.learn(app)
    assert device.learn() == ["stop"]
    assert device.task("d-app-1").stage == "installed"


def test_events_that_cannot_be_raise_and_change_nothing() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    before = device.machine.tasks()
    impossible = (
        lambda: device.verified("d-app-1.1"),
        lambda: device.installed("d-app-1.1"),
        lambda: device.failed("d-app-1.1"),
        lambda: device.machine.handle_install_deferred("d-app-1.1", "", device.now),
        lambda: device.machine.handle_artifact_mismatched("d-app-1.1", "", device.now),
    )
    for event in impossible:
        with pytest.raises(UsageError, match="is not"):
            event()
    assert device.machine.tasks() == before
    assert device.do() == []


def test_content_of_nobody_s_interest_changes_nothing() -> None:
    app = release()
    device = device_with(app)
    device.machine.handle_content_finished(app.info_hash, device.now)
    device.machine.handle_content_refused(app.info_hash, "x", "bad", device.now)
    device.machine.handle_storage_failed(app.info_hash, "full", device.now)
    device.machine.handle_content_progressed(
        app.info_hash, fraction=0.5, rate_bytes_per_s=1, sources=1, now=device.now
    )
    assert device.do() == []


def test_refusals_from_elsewhere_are_told_once_while_they_wait_and_are_capped() -> None:
    device = Device()
    for _ in range(3):
        device.machine.handle_refused("stranger", "10.0.0.9", "no certificate", device.now)
    assert device.do() == ["refusal stranger"]
    for number in range(limits.REFUSALS_UNCONFIRMED_MAX + 10):
        device.machine.handle_refused("stranger", f"10.0.1.{number}", "no certificate", device.now)
    assert len(device.machine.unconfirmed()) == limits.REFUSALS_UNCONFIRMED_MAX


def test_progress_is_told_at_changes_and_otherwise_only_now_and_then() -> None:
    app = release()
    device = device_with(app, progress_every_s=5.0)
    device.want(app)
    device.progress.clear()
    for second in range(1, 11):
        device.wait(1)
        device.machine.handle_content_progressed(
            app.info_hash, fraction=second / 20, rate_bytes_per_s=second, sources=2, now=device.now
        )
        device.do()
    assert [p.fraction for p in device.progress] == [0.25, 0.5]


def test_that_nobody_serves_it_is_told_at_once_and_no_longer_when_somebody_does() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.progress.clear()
    for waits in ("it comes from mirrors", "it comes from mirrors", ""):
        device.machine.handle_content_progressed(
            app.info_hash, fraction=0.0, rate_bytes_per_s=0, sources=0, waits=waits, now=device.now
        )
        device.do()
    told = [(p.stage, p.detail) for p in device.progress]
    assert told[0] == ("fetching", "it comes from mirrors")
    assert told[-1] == ("fetching", "")


def test_the_output_of_many_unconfirmed_reports_does_not_fill_the_memory() -> None:
    many = [release(f"p{number}") for number in range(70)]
    device = device_with(*many)
    device.want(*many)
    for r in many:
        device.fetched(r)
        device.verified(f"d-{r.product}-1.1")
        device.machine.handle_installed(
            f"d-{r.product}-1.1", exit_code=0, output=b"x" * limits.OUTPUT_BYTES_MAX, now=device.now
        )
        device.do()
    waiting = [message for message in device.machine.unconfirmed() if isinstance(message, Report)]
    assert len(waiting) == 70
    assert sum(len(report.output) for report in waiting) <= limits.REPORTS_OUTPUT_BYTES_MAX + 70 * 1_024


def test_a_damaged_journal_record_is_an_error_of_ours() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    for key in device.journal:
        with pytest.raises(PeerError):
            Deployments(device.settings, {key: b"\xc1"}, now=device.now)


def test_the_journal_holds_exactly_what_the_machine_knows() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    install_all(device, app, "d-app-1")
    before = device.machine.tasks()
    device.restart()
    assert device.machine.tasks() == before
    assert device.machine.installed == {"stable/app": 1}
    assert msgspec.structs.asdict(before[0])["stage"] == "installed"


# What deltas start from --------------------------------------------------------------------------


def test_the_artifact_of_what_is_installed_stays_until_a_newer_release_is_installed() -> None:
    old, new = release(sequence=1), release(sequence=2)
    device = device_with(old, new)
    device.want(old)
    device.fetched(old)
    device.verified("d-app-1.1")
    device.installed("d-app-1.1")
    assert device.want(new) == ["stop", "fetch app 2"]
    assert device.machine.bases() == {old.info_hash}
    device.fetched(new)
    device.verified("d-app-2.1")
    assert "forget" in device.installed("d-app-2.1")
    assert device.machine.bases() == {new.info_hash}


def test_the_artifact_of_what_is_installed_is_remembered_through_a_restart() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.fetched(app)
    device.verified("d-app-1.1")
    device.installed("d-app-1.1")
    device.restart()
    assert device.machine.bases() == {app.info_hash}


def test_a_full_disk_takes_the_space_of_what_is_only_kept_for_deltas() -> None:
    old, new = release(sequence=1), release(sequence=2)
    device = device_with(old, new)
    device.want(old)
    device.fetched(old)
    device.verified("d-app-1.1")
    device.installed("d-app-1.1")
    device.want(new)
    device.machine.handle_storage_failed(new.info_hash, "the disk is full", device.now)
    assert device.do() == ["forget"]
    assert device.machine.bases() == frozenset()


def test_a_report_says_how_the_artifact_was_fetched_also_after_a_restart() -> None:
    app = release()
    device = device_with(app)
    device.want(app)
    device.machine.handle_content_finished(app.info_hash, device.now, note="by a delta")
    device.do()
    device.restart()
    device.learn(app)
    device.admit()
    device.fetched(app)
    device.verified("d-app-1.1")
    device.installed("d-app-1.1")
    assert device.reports[-1].reason == "by a delta"
