"""The agent as what is installed: each step of it, and ``kill -9`` before every one of them.

Each call here is a process of its own, the version that the link names then, as the guard starts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from killer import Killer

from p2pdist import limits
from p2pdist.errors import Unavailable, UsageError
from p2pdist.install.installers import check_installable, install
from p2pdist.install.platform import Machine, detect_platform
from p2pdist.install.trial import Place
from p2pdist.trust.catalog import AgentRecipe, Release

Workshop = Any
LEFT = "it left"
NEW = b"#!/bin/sh\necho 2.0.0\n"
OLD = b"#!/bin/sh\necho 1.0.0\n"
WHY = "it ended 3 times"
STEP = 3  # 1 tries every point; three times as long
FAILED = f"the new version did not report back: {WHY}"


@dataclass
class Device:
    """A machine with the old version, and what is deployed to it."""

    root: Path
    release: Release
    artifact: Path
    killer: Killer

    def __post_init__(self) -> None:
        self.place = self.root / "root" / "place"
        self.old = self.place / "versions" / "first" / "p2pdist-agent"
        self.old.parent.mkdir(parents=True)
        self.old.write_bytes(OLD)
        self.old.chmod(0o755)
        self.link = self.place / "p2pdist-agent"
        self.link.symlink_to(self.old)
        self.new = Place(self.old, self.release.sha256).new

    def call(self, kill_at: int = 0) -> dict[str, Any]:
        """Have the version in use install what is deployed; return what came of it."""
        running = self.link.readlink()
        assert running.read_bytes() in (OLD, NEW), "half a version is in use"
        answer = self.killer.install(
            self.release, self.artifact, self.root, "one", kill_at=kill_at, own=running
        )
        if answer.get("failure") == LEFT:
            assert self.link.readlink() == self.new
        return answer

    def give_up(self, *, number: int = 1, ended: int = limits.TRIAL_STARTS_MAX) -> None:
        """Do what the guard does with a version that does not report."""
        assert self.link.readlink() == self.new
        trial = self.place / "trial"
        trial.write_text(trial.read_text().replace("number=1", f"number={number}"))
        (self.place / "trial.reason").write_text(WHY + "\n")
        (self.place / "trial.count").write_text(f"ended={ended}\nran=9\nboot=\n")
        trial.rename(self.place / "trial.failed")
        self.link.unlink()
        self.link.symlink_to(self.old)

    def finish(self) -> str:
        """Go on until the attempt has ended; return why it failed."""
        for _ in range(3):
            failure: str = self.call()["failure"]
            if failure != LEFT:
                assert self.call()["failure"] == failure, "what has ended is told again"
                return failure
        raise AssertionError("it goes on for ever")

    def leftovers(self) -> list[str]:
        names = [path.name for path in self.place.rglob("*")]
        return sorted(name for name in names if name.startswith("trial") or name.endswith((".part", ".new")))


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    killer = Killer()
    yield killer
    killer.close()


@pytest.fixture
def make(workshop: Workshop, killer: Killer) -> Callable[..., Device]:
    """Makes devices, to which *content* is deployed."""
    made = 0

    def make(content: bytes = NEW) -> Device:
        nonlocal made
        made += 1
        artifact = workshop.artifact(content)
        release = workshop.release(AgentRecipe(), artifact, 2, product="p2pdist-agent")
        return Device(workshop.base / f"device{made}", release, artifact, killer)

    return make


def test_the_new_version_stands_beside_the_old_one_on_trial_and_stays_once_it_is_heard_of(
    make: Callable[..., Device],
) -> None:
    device = make()
    assert device.call()["failure"] == LEFT
    assert (device.place / "trial").exists()
    assert device.old.read_bytes() == OLD and device.new.read_bytes() == NEW
    assert device.finish() == ""
    assert device.link.readlink() == device.new
    assert device.old.exists(), "to go back to by hand"
    assert device.leftovers() == []


def test_what_the_guard_gave_up_has_failed_for_its_reason_and_is_gone(make: Callable[..., Device]) -> None:
    device = make()
    device.call()
    device.give_up()
    assert device.finish() == FAILED
    assert device.link.readlink() == device.old
    assert not device.new.exists() and device.leftovers() == []


def test_what_was_only_too_slow_is_tried_once_more(make: Callable[..., Device]) -> None:
    device = make()
    device.call()
    device.give_up(ended=0)
    assert device.call()["failure"] == LEFT
    assert "number=2\n" in (device.place / "trial").read_text()
    device.give_up(number=limits.TRIALS_MAX, ended=0)
    assert device.finish() == FAILED


def test_what_does_not_start_here_is_not_put_on_trial(make: Callable[..., Device]) -> None:
    device = make(b"#!/bin/sh\necho no such library; exit 127\n")
    assert device.call()["failure"] == "the new version, asked for its number, ended with exit code 127"
    assert device.link.readlink() == device.old
    assert not device.new.exists() and device.leftovers() == []


def test_the_version_that_runs_already_is_installed_without_a_restart(make: Callable[..., Device]) -> None:
    device = make()
    device.new.parent.mkdir()
    device.new.write_bytes(NEW)
    device.link.unlink()
    device.link.symlink_to(device.new)
    assert device.call()["failure"] == ""


def installed(device: Device) -> None:
    assert device.finish() == ""
    assert device.link.readlink() == device.new and device.new.read_bytes() == NEW


def failed(device: Device) -> None:
    assert device.finish() == FAILED
    assert device.link.readlink() == device.old
    assert not device.new.exists()


def nothing(device: Device) -> None:
    """The old version is asked."""


def left(device: Device) -> None:
    """The new version is on trial."""
    assert device.call()["failure"] == LEFT


def gone_back(device: Device) -> None:
    """The guard has given up the new one."""
    left(device)
    device.give_up()


def too_slow(device: Device) -> None:
    """The guard has given up the new one, for the first time, because its time was over."""
    left(device)
    device.give_up(ended=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"), [(nothing, installed), (left, installed), (gone_back, failed), (too_slow, installed)]
)
def test_there_is_no_point_at_which_a_kill_does_harm(
    make: Callable[..., Device], before: Callable[[Device], None], after: Callable[[Device], None]
) -> None:
    undisturbed = make()
    before(undisturbed)
    count = undisturbed.call()["operations"]
    for point in range(1, count + 1, STEP):
        device = make()
        before(device)
        assert device.call(kill_at=point) == {"killed": True}
        after(device)
        assert device.leftovers() == [], f"point {point}"


class Unheard:
    """A program that the admin server does not answer."""

    def __init__(self, file: Path) -> None:
        self.file = file

    async def confirm(self) -> None:
        await trio.sleep_forever()

    def leave(self) -> None:
        raise AssertionError("it was not heard of")


async def test_nothing_is_begun_while_the_admin_server_does_not_answer(
    make: Callable[..., Device], workshop: Workshop, autojump_clock: trio.abc.Clock
) -> None:
    device = make()
    with pytest.raises(Unavailable, match="does not answer"):
        await install(
            device.release, device.artifact, layout=workshop.layout, attempt="one", own=Unheard(device.old)
        )
    assert not device.new.exists() and device.leftovers() == []


async def test_a_program_without_a_guard_is_not_replaced(
    make: Callable[..., Device], workshop: Workshop
) -> None:
    device = make()
    with pytest.raises(UsageError, match="under no guard"):
        await install(device.release, device.artifact, layout=workshop.layout)
    with pytest.raises(UsageError, match="was not installed as one"):
        check_installable(device.release, machine=Machine(platform=detect_platform()))
    check_installable(device.release, machine=Machine(platform=detect_platform(), guarded=True))
