"""Random histories of one device, with crashes anywhere: what must hold in all of them.

The world around the machine keeps its own account of what really happened: which bytes are on the
disk, what the installer was given, what the admin server received. Only that account is checked.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist.core.assessment import product_key
from p2pdist.core.deployment import Deployments
from p2pdist.core.deployment_model import (
    DeploymentSettings,
    Install,
    Moment,
    SendRefusal,
    SendReport,
    VerifyArtifact,
)
from p2pdist.core.fetches import Fetch, ForgetArtifact, StopFetching
from p2pdist.ids import ChannelName, FleetName, InfoHash, ProductName, TargetPath, swarm_of
from p2pdist.trust.catalog import Catalog, CommandRecipe, Release
from p2pdist.wire.messages import Deployment, DesiredState

FLEET = FleetName("acme")
STABLE = swarm_of(ChannelName("stable"), FLEET)


def make_release(product: str, sequence: int, **changes: object) -> Release:
    digest = f"{ord(product):032x}{sequence:032x}"
    values: dict[str, object] = {
        "target": TargetPath(f"stable/{product}/{sequence}/x.bin"),
        "channel": ChannelName("stable"),
        "product": ProductName(product),
        "version": str(sequence),
        "sequence": sequence,
        "platform": "any",
        "length": 10,
        "sha256": digest,
        "info_hash": InfoHash(digest),
        "recipe": CommandRecipe(arguments=["x"]),
    }
    return Release(**(values | changes))  # type: ignore[arg-type]


RELEASES = [
    make_release("a", 1),
    make_release("a", 2),
    make_release("a", 3, rollback_from=4),
    make_release("a", 4, prerequisites=("b>=1",)),
    make_release("b", 1),
    make_release("b", 2, platform="windows"),
    make_release("c", 1, prerequisites=("a>=2",)),
]


@dataclass
class World:
    """A device and everything around it, driven by one seeded source of chance."""

    rng: random.Random
    now: Moment = field(default_factory=lambda: Moment(unix_s=1e6, monotonic_s=0.0))
    journal: dict[str, bytes] = field(default_factory=dict)
    catalog: set[int] = field(default_factory=set)
    wanted: dict[str, Release] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    revision: int = 0
    number: int = 0
    running: dict[InfoHash, Release] = field(default_factory=dict)
    verifying: VerifyArtifact | None = None
    good: InfoHash | None = None
    installing: Install | None = None
    really_installed: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    floors: dict[str, int] = field(default_factory=dict)
    owed: dict[str, str] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.settings = DeploymentSettings(
            fleet=FLEET, objection=lambda r: "" if r.platform == "any" else "wrong platform"
        )
        self.start()

    def start(self) -> None:
        self.running.clear()
        self.verifying = self.installing = self.good = None
        self.machine = Deployments(self.settings, dict(self.journal), now=self.now)
        self.after()

    # What can happen -------------------------------------------------------------------------------

    def step(self) -> None:
        events = [self.desire, self.learn, self.tick, self.admit, self.link, self.confirm, self.crash]
        if self.running:
            events += [self.finish_fetch] * 10 + [self.refuse_bytes, self.fill_disk]
        if self.verifying is not None:
            events += [self.verify] * 8
        if self.installing is not None:
            events += [self.install] * 8
        self.rng.choice(events)()
        self.after()

    def desire(self) -> None:
        self.revision += 1
        for name in list(self.wanted):
            if self.rng.random() < 0.1:
                del self.wanted[name]
        for _ in range(self.rng.randrange(3)):
            self.number += 1
            self.wanted[f"d{self.number}"] = self.rng.choice(RELEASES)
        for name in self.wanted:
            if self.rng.random() < 0.1:
                self.retries[name] = self.retries.get(name, 0) + 1
        deployments = [
            Deployment(id=i, target=r.target, retry=self.retries.get(i, 0)) for i, r in self.wanted.items()
        ]
        self.machine.handle_desired_state(
            DesiredState(revision=self.revision, group="/", swarms=[], deployments=deployments), self.now
        )

    def learn(self) -> None:
        self.catalog ^= (
            {self.rng.randrange(len(RELEASES)) for _ in range(2)} if self.catalog else set(range(7))
        )
        releases = {RELEASES[i].target: RELEASES[i] for i in self.catalog}
        catalog = Catalog(releases=releases, grants={}, channels=(), versions={}, expires=0)
        self.machine.handle_catalog(self.rng.choice([catalog] * 7 + [None]), self.now)

    def admit(self) -> None:
        self.machine.handle_certificate(self.rng.choice([[STABLE]] * 5 + [[]]), self.now)

    def tick(self) -> None:
        seconds = self.rng.choice([0.0, 1.0, 20.0, 2_000.0])
        self.now = Moment(unix_s=self.now.unix_s + seconds, monotonic_s=self.now.monotonic_s + seconds)
        self.machine.handle_tick(self.now)

    def link(self) -> None:
        self.machine.handle_linked(self.now)

    def finish_fetch(self) -> None:
        self.machine.handle_content_finished(self.rng.choice(sorted(self.running)), self.now)

    def refuse_bytes(self) -> None:
        self.machine.handle_content_refused(self.rng.choice(sorted(self.running)), "x", "bad", self.now)

    def fill_disk(self) -> None:
        self.machine.handle_storage_failed(self.rng.choice(sorted(self.running)), "full", self.now)

    def verify(self) -> None:
        assert self.verifying is not None
        command, self.verifying = self.verifying, None
        match self.rng.randrange(6):
            case 0:
                self.machine.handle_artifact_mismatched(command.attempt, "wrong hash", self.now)
            case 1:
                self.machine.handle_artifact_unreadable(command.attempt, "gone", self.now)
            case _:
                self.good = command.release.info_hash
                self.machine.handle_artifact_verified(command.attempt, self.now)

    def install(self) -> None:
        assert self.installing is not None
        command, self.installing = self.installing, None
        key = product_key(command.release)
        match self.rng.randrange(5):
            case 0:
                deployment = command.attempt.partition(".")[0]
                self.failed[deployment] = self.retries.get(deployment, 0)
                self.machine.handle_install_failed(
                    command.attempt, "no", exit_code=1, output=b"", now=self.now
                )
            case 1:
                self.machine.handle_install_deferred(command.attempt, "later", self.now)
                return
            case _:
                self.really_installed[key] = command.release.sequence
                self.floors[key] = max(self.floors.get(key, 0), command.release.sequence)
                self.machine.handle_installed(command.attempt, exit_code=0, output=b"", now=self.now)
        self.ended[command.attempt] = self.ended.get(command.attempt, 0) + 1

    def confirm(self) -> None:
        for identifier in list(self.owed):
            if self.rng.random() < 0.5:
                self.confirmed.add(identifier)
                del self.owed[identifier]
        self.machine.handle_received(self.confirmed, self.now)

    def crash(self) -> None:
        if self.rng.random() < 0.5:  # before the journal was written
            self.machine.take_changes()
        self.start()

    # What the driver does, and what must hold ---------------------------------------------------------

    def after(self) -> None:
        for key, record in self.machine.take_changes().items():
            if record is None:
                del self.journal[key]
            else:
                self.journal[key] = record
        for message in self.machine.unconfirmed():
            assert message.id not in self.confirmed, "a confirmed message came back"
        while (command := self.machine.poll_command()) is not None:
            self.carry_out(command)
        deadline = self.machine.next_deadline()
        assert deadline is None or deadline > self.now.monotonic_s
        in_hand = [t for t in self.machine.tasks() if t.stage in ("verifying", "installing")]
        assert len(in_hand) <= 1
        assert self.machine.installed == self.really_installed
        assert {key: self.machine.floor(key) for key in self.floors} == self.floors

    def carry_out(self, command: object) -> None:
        match command:
            case Fetch(release=release):
                assert release.platform == "any", "fetched for another platform"
                self.running[release.info_hash] = release
            case StopFetching(info_hash=info_hash) | ForgetArtifact(info_hash=info_hash):
                self.running.pop(info_hash, None)
            case VerifyArtifact():
                assert self.verifying is None and self.installing is None, "two in hand"
                self.verifying = command
            case Install(release=release):
                assert self.verifying is None and self.installing is None, "two in hand"
                assert self.good == release.info_hash, "bytes that nobody has just verified"
                self.good = None
                floor = self.floors.get(product_key(release), 0)
                permitted = release.rollback_from is not None and floor <= release.rollback_from
                assert release.sequence >= floor or permitted, "an older release without permission"
                assert self.ended.get(command.attempt, 0) == 0, "an attempt that had ended began again"
                deployment = command.attempt.partition(".")[0]
                failed = self.failed.get(deployment, -1)
                assert failed < self.retries.get(deployment, 0), "tried again, and nobody had asked"
                self.installing = command
            case SendReport(report=report):
                for identifier, deployment in list(self.owed.items()):
                    if deployment == report.deployment and identifier != report.id:
                        del self.owed[identifier]  # the newer report of one deployment replaces the older
                self.owed[report.id] = report.deployment
            case SendRefusal():
                pass


@given(st.integers(min_value=0, max_value=2**64), st.integers(min_value=10, max_value=120))
@settings(max_examples=80, deadline=None)
def test_whatever_happens_a_device_keeps_its_promises(seed: int, steps: int) -> None:
    world = World(random.Random(seed))
    for _ in range(steps):
        world.step()
    waiting = {message.id for message in world.machine.unconfirmed()}
    assert set(world.owed) <= waiting, "a report that nobody confirmed was lost"


@given(st.integers(min_value=0, max_value=2**64))
@settings(max_examples=25, deadline=None)
def test_when_the_trouble_is_over_every_deployment_ends(seed: int) -> None:
    world = World(random.Random(seed))
    for _ in range(60):
        world.step()
    world.catalog = set(range(len(RELEASES)))
    catalog = Catalog(
        releases={r.target: r for r in RELEASES}, grants={}, channels=(), versions={}, expires=0
    )
    world.wanted = {"last-a": RELEASES[3], "last-b": RELEASES[4], "last-c": RELEASES[6]}
    world.revision += 1
    deployments = [Deployment(id=i, target=r.target) for i, r in world.wanted.items()]
    world.machine.handle_desired_state(
        DesiredState(revision=world.revision, group="/", swarms=[], deployments=deployments), world.now
    )
    world.machine.handle_catalog(catalog, world.now)
    world.machine.handle_certificate([STABLE], world.now)
    world.after()
    for _ in range(60):
        for info_hash in sorted(world.running):
            world.machine.handle_content_finished(info_hash, world.now)
        world.after()
        if world.verifying is not None:
            verify, world.verifying = world.verifying, None
            world.good = verify.release.info_hash
            world.machine.handle_artifact_verified(verify.attempt, world.now)
            world.after()
        if world.installing is not None:
            install, world.installing = world.installing, None
            key, sequence = product_key(install.release), install.release.sequence
            world.really_installed[key] = sequence
            world.floors[key] = max(world.floors.get(key, 0), sequence)
            world.machine.handle_installed(install.attempt, exit_code=0, output=b"", now=world.now)
            world.after()
        world.now = Moment(unix_s=world.now.unix_s + 60, monotonic_s=world.now.monotonic_s + 60)
        world.machine.handle_tick(world.now)
        world.after()
    assert all(task.ended for task in world.machine.tasks()), world.machine.tasks()
    assert {task.deployment for task in world.machine.tasks()} == set(world.wanted)
