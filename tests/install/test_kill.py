"""``kill -9`` at any moment of an installation: real processes, really killed, then started again.

Each case begins with version 1 in place, kills the installation of version 2 at one point, looks at
what is visible, and lets a new process finish. The points are operations on files and processes; a
seeded sample of them is tried here, every second one in the slow tests.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from killer import Killer

from p2pdist.trust.catalog import CommandRecipe, DebRecipe, FileRecipe, Release

pytestmark = pytest.mark.slow  # real processes, many kills or a whole server: not in the fast subset

Workshop = Any
SAMPLE = 4
STEP = 2  # 1 tries every point; twice as long

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not here")
KINDS = ["tree", "file", "command", "checked-command", pytest.param("deb", marks=needs_dpkg)]


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    killer = Killer()
    yield killer
    killer.close()


@dataclass
class Case:
    """Two versions of one product, and what to look at on the device."""

    releases: list[tuple[Release, Path]]
    version: Callable[[Path], str | None]
    """What a user of the device sees: the version, whole, or an AssertionError."""
    runs: Callable[[Path], list[str]]
    """What was run, in order, where that must not happen twice."""


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def tree_case(workshop: Workshop, *, sick: bool = False) -> Case:
    releases = []
    for sequence in (1, 2):
        files = {f"part{number}": f"{sequence}" for number in range(6)}
        files["check"] = '#!/bin/sh\ncat part5\ntest "$(cat part0)" = "$(cat part5)"\n'
        if sick and sequence == 2:
            files["check"] += "exit 5\n"
        artifact, recipe = workshop.tree(files)
        recipe = msgspec.structs.replace(recipe, health_check=["./check"], keep=0)
        releases.append((workshop.release(recipe, artifact, sequence), artifact))

    def version(device: Path) -> str | None:
        current = device / "root/opt/app/current"
        found = {path.read_text() for path in current.glob("part*")}
        assert len(found) == 1, "a half tree is visible"
        assert len(list(current.iterdir())) == 7
        return found.pop()

    return Case(releases, version, lambda device: [])


def file_case(workshop: Workshop, *, sick: bool = False) -> Case:
    releases = []
    reload = ["sh", "-c", 'cat "$P2PDIST_ROOT/etc/app.conf" > "$P2PDIST_ROOT/loaded"']
    if sick:
        reload[2] += '; grep -q 1 "$P2PDIST_ROOT/loaded"'
    for sequence in (1, 2):
        artifact = workshop.artifact(f"{sequence}".encode() * 10_000)
        recipe = FileRecipe(path="/etc/app.conf", reload=reload)
        releases.append((workshop.release(recipe, artifact, sequence), artifact))

    def version(device: Path) -> str | None:
        text = (device / "root/etc/app.conf").read_text()
        assert len(text) == 10_000 and len(set(text)) == 1, "a half file is visible"
        return text[0]

    return Case(releases, version, lambda device: [])


def command_case(workshop: Workshop, *, checked: bool) -> Case:
    releases = []
    for sequence in (1, 2):
        artifact = workshop.artifact(f"{sequence}".encode())
        run = 'cat "$1" >> "$P2PDIST_ROOT/log"; echo >> "$P2PDIST_ROOT/log"'
        check = 'grep -qx "$(cat "$1")" "$P2PDIST_ROOT/log"'
        recipe = CommandRecipe(
            arguments=["sh", "-c", run, "sh", "{artifact}"],
            check=["sh", "-c", check, "sh", "{artifact}"] if checked else [],
        )
        releases.append((workshop.release(recipe, artifact, sequence), artifact))

    def version(device: Path) -> str | None:
        return lines(device / "root/log")[-1]

    return Case(releases, version, lambda device: lines(device / "root/log"))


def deb_case(workshop: Workshop) -> Case:
    releases = []
    for sequence in (1, 2):
        artifact = workshop.deb(f"{sequence}", postinst='#!/bin/sh\necho "$2" >> "$DPKG_ROOT/configured"\n')
        recipe = DebRecipe(package="p2pdist-test", version=f"{sequence}", architecture="all")
        releases.append((workshop.release(recipe, artifact, sequence), artifact))

    def version(device: Path) -> str | None:
        query = ["dpkg-query", f"--root={device / 'root'}", "--show", "--showformat=${Status} ${Version}"]
        ran = subprocess.run([*query, "p2pdist-test"], capture_output=True, text=True, check=False)
        words = ran.stdout.split()
        if words[2:3] != ["installed"]:
            return None  # dpkg itself says that it is in the middle of it
        files = (device / "root/usr/share/p2pdist-test").glob("file*")
        assert {path.read_text().split()[0] for path in files} == {words[3]}
        return words[3]

    return Case(releases, version, lambda device: [])


def make_case(workshop: Workshop, kind: str) -> Case:
    match kind:
        case "tree":
            return tree_case(workshop)
        case "file":
            return file_case(workshop)
        case "deb":
            return deb_case(workshop)
        case "sick tree":
            return tree_case(workshop, sick=True)
        case "sick file":
            return file_case(workshop, sick=True)
        case _:
            return command_case(workshop, checked=kind == "checked-command")


def prepare(killer: Killer, case: Case, workshop: Workshop, name: str) -> Path:
    device: Path = workshop.base / name
    assert killer.install(*case.releases[0], device, "one")["failure"] == ""
    return device


def end_programs_of(device: Path) -> None:
    """End what an installer started, the way a power cut does. Only programs that we told our root."""
    wanted = f"P2PDIST_ROOT={device / 'root'}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)


def try_point(killer: Killer, case: Case, kind: str, device: Path, point: int, *, power: bool) -> None:
    """Kill at *point*, look, start again, look."""
    killed = killer.install(*case.releases[1], device, "two", kill_at=point)
    assert killed == {"killed": True}
    if power:
        end_programs_of(device)
    if kind != "deb" and (kind != "file" or power):
        assert case.version(device) in ("1", "2")
    resumed = killer.install(*case.releases[1], device, "two")
    runs = case.runs(device)
    if resumed["failure"] == "the command was interrupted; not run again":
        assert kind == "command"
        assert runs in (["1"], ["1", "2"])
    else:
        assert resumed["failure"] == "", f"point {point}"
        assert case.version(device) == "2", f"point {point}"
        assert runs in ([], ["1", "2"]), f"point {point}"
    again = killer.install(*case.releases[1], device, "two")
    assert again["failure"] == resumed["failure"]
    assert case.runs(device) == runs, "it ran again after it had ended"
    endings = (".new", ".unpacking", ".p2pdist-old", ".p2pdist-new", ".scratch")
    leftovers = [path for path in device.rglob("*") if path.name.endswith(endings)]
    assert leftovers == []


def operations(killer: Killer, case: Case, workshop: Workshop) -> int:
    device = prepare(killer, case, workshop, "undisturbed")
    answer = killer.install(*case.releases[1], device, "two")
    assert answer["failure"] == ""
    return int(answer["operations"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_installation_is_finished_by_the_next_start(
    killer: Killer, workshop: Workshop, kind: str
) -> None:
    case = make_case(workshop, kind)
    count = operations(killer, case, workshop)
    rng = random.Random(f"{kind} points")
    for point in sorted(rng.sample(range(1, count + 1), SAMPLE)):
        device = prepare(killer, case, workshop, f"at-{point}")
        try_point(killer, case, kind, device, point, power=rng.random() < 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_there_is_no_point_at_which_a_kill_does_harm(killer: Killer, workshop: Workshop, kind: str) -> None:
    case = make_case(workshop, kind)
    for point in range(1, operations(killer, case, workshop) + 1, STEP):
        device = prepare(killer, case, workshop, f"at-{point}")
        try_point(killer, case, kind, device, point, power=point % 4 == 1)
        shutil.rmtree(device)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sick tree", "sick file"])
def test_there_is_no_point_at_which_a_kill_keeps_a_bad_version(
    killer: Killer, workshop: Workshop, kind: str
) -> None:
    case = make_case(workshop, kind)
    device = prepare(killer, case, workshop, "undisturbed")
    undisturbed = killer.install(*case.releases[1], device, "two")
    assert "ended with exit code" in undisturbed["failure"]
    for point in range(1, undisturbed["operations"] + 1, STEP):
        device = prepare(killer, case, workshop, f"at-{point}")
        assert killer.install(*case.releases[1], device, "two", kill_at=point) == {"killed": True}
        if point % 4 == 1:
            end_programs_of(device)
        resumed = killer.install(*case.releases[1], device, "two")
        assert resumed["failure"] == undisturbed["failure"], f"point {point}"
        assert case.version(device) == "1", f"point {point}"
        shutil.rmtree(device)


@needs_dpkg
def test_a_dpkg_that_is_killed_in_the_middle_is_finished_by_the_next_start(
    killer: Killer, workshop: Workshop
) -> None:
    """A power cut: installer and dpkg end at the same moment, at moments spread over dpkg's run."""
    case = deb_case(workshop)
    began = time.monotonic()
    operations(killer, case, workshop)
    longest = (time.monotonic() - began) / 2
    rng = random.Random("dpkg")
    for number in range(4):
        device = prepare(killer, case, workshop, f"power-{number}")
        killer.start(*case.releases[1], device, f"try-{number}")
        time.sleep(rng.random() * longest)  # the moment of a power cut has no event to wait for
        end_programs_of(device)
        killer.answer()
        killer.install(*case.releases[1], device, f"try-{number}")
        answer = killer.install(*case.releases[1], device, "after")
        assert answer["failure"] == ""
        assert case.version(device) == "2"


def test_a_command_that_outlives_its_killed_installer_is_waited_for(
    killer: Killer, workshop: Workshop
) -> None:
    """Were it not, the check would say "not installed" while the first run goes on: a second one."""
    started, go = workshop.base / "started", workshop.base / "go"
    os.mkfifo(started)
    os.mkfifo(go)
    run = f'echo > {started}; cat {go}; echo ran >> "$P2PDIST_ROOT/log"'
    recipe = CommandRecipe(
        arguments=["sh", "-c", run], check=["sh", "-c", 'test -e "$P2PDIST_ROOT/log"'], timeout_s=30
    )
    artifact = workshop.artifact(b"x")
    release = workshop.release(recipe, artifact)
    own = Killer()
    own.start(release, artifact, workshop.base, "one")
    started.read_text()
    children = Path(f"/proc/{own.process.pid}/task/{own.process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    assert own.answer() == {"killed": True}
    own.start(release, artifact, workshop.base, "one")
    go.write_text("go on")
    assert own.answer()["failure"] == ""
    assert lines(workshop.root / "log") == ["ran"]
    own.close()
