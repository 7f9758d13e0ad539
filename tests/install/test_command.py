"""Commands: run once, without a shell, with what the signed recipe says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from p2pdist.errors import Unavailable
from p2pdist.files import write_atomic
from p2pdist.install import command
from p2pdist.install.steps import Step
from p2pdist.trust.catalog import CommandRecipe, Release

Workshop = Any
Script = Callable[[str, str], Path]


def make(workshop: Workshop, *arguments: str, **options: Any) -> tuple[Release, Path]:
    artifact = workshop.artifact(b"#!/bin/sh\necho artifact ran with $*\n")
    return workshop.release(CommandRecipe(arguments=list(arguments), **options), artifact), artifact


async def test_the_artifact_is_handed_over_under_its_signed_name(workshop: Workshop) -> None:
    result = await workshop.install(*make(workshop, "sh", "-c", 'echo "$1"; cat "$1"', "sh", "{artifact}"))
    lines = result.output.decode().splitlines()
    assert lines[0].endswith("/app.bin")
    assert lines[1:] == ["#!/bin/sh", "echo artifact ran with $*"]


async def test_the_artifact_itself_is_run_from_a_copy_and_keeps_its_mode(workshop: Workshop) -> None:
    release, artifact = make(workshop, "{artifact}", "--now", "{artifact}.log")
    artifact.chmod(0o600)
    result = await workshop.install(release, artifact)
    assert result.installed
    assert result.output.startswith(b"artifact ran with --now /")
    assert artifact.stat().st_mode & 0o777 == 0o600
    assert not list(workshop.layout.state.glob("*.scratch"))


async def test_a_command_learns_what_it_installs_and_where(workshop: Workshop) -> None:
    result = await workshop.install(
        *make(workshop, "sh", "-c", "echo $P2PDIST_PRODUCT $P2PDIST_VERSION $P2PDIST_ROOT; pwd")
    )
    root = workshop.root
    assert result.output.decode().splitlines() == [f"app 1.0 {root}", str(root.resolve())]


@pytest.mark.parametrize(("code", "expected", "fine"), [(0, [0], True), (3, [0], False), (3, [0, 3], True)])
async def test_only_expected_exit_codes_count_as_installed(
    workshop: Workshop, code: int, expected: list[int], fine: bool
) -> None:
    result = await workshop.install(*make(workshop, "sh", "-c", f"exit {code}", expected_exit_codes=expected))
    assert (result.installed, result.exit_code) == (fine, code)


async def test_a_command_that_takes_too_long_has_failed(workshop: Workshop) -> None:
    result = await workshop.install(*make(workshop, "sh", "-c", "echo begun; sleep 1000", timeout_s=1))
    assert result.failure == "the command did not finish within 1 s and was ended"
    assert result.output == b"begun\n"


async def test_a_check_that_says_installed_spares_the_command(workshop: Workshop, script: Script) -> None:
    run = script("run", 'echo ran >> "$P2PDIST_ROOT/log"')
    check = script("check", 'test -e "$P2PDIST_ROOT/log"')
    for _ in range(3):
        assert (await workshop.install(*make(workshop, str(run), check=[str(check)]))).installed
    assert (workshop.root / "log").read_text() == "ran\n"


def interrupted(workshop: Workshop, release: Release, attempt: str) -> None:
    """What is on the disk after a kill in the middle of the command."""
    step = Step(kind="command", attempt=attempt, sha256=release.sha256, phase="started")
    workshop.layout.state.mkdir()
    write_atomic(workshop.layout.state / "stable@app.json", msgspec.json.encode(step))


async def test_an_interrupted_command_without_a_check_is_reported_and_not_run_again(
    workshop: Workshop, script: Script
) -> None:
    release, artifact = make(workshop, str(script("run", 'echo ran >> "$P2PDIST_ROOT/log"')))
    interrupted(workshop, release, "d1.1")
    for _ in range(2):
        result = await workshop.install(release, artifact, attempt="d1.1")
        assert result.failure == "the command was interrupted; not run again"
    assert not (workshop.root / "log").exists()
    assert (await workshop.install(release, artifact, attempt="d1.2")).installed
    assert (workshop.root / "log").read_text() == "ran\n"


async def test_an_interrupted_command_with_a_check_is_resumed(workshop: Workshop, script: Script) -> None:
    run = script("run", 'echo ran >> "$P2PDIST_ROOT/log"')
    check = script("check", 'test -e "$P2PDIST_ROOT/log"')
    release, artifact = make(workshop, str(run), check=[str(check)])
    interrupted(workshop, release, "d1.1")
    assert (await workshop.install(release, artifact, attempt="d1.1")).installed
    assert (workshop.root / "log").read_text() == "ran\n"


async def test_a_missing_program_is_a_failure_and_a_missing_artifact_is_not_now(workshop: Workshop) -> None:
    result = await workshop.install(*make(workshop, "no-such-program-anywhere"))
    assert result.failure.startswith("the command could not be started")
    release, artifact = make(workshop, "true", "{artifact}")
    artifact.unlink()
    with pytest.raises(Unavailable):
        await workshop.install(release, artifact)


async def test_a_disk_that_does_not_answer_does_not_hold_up_the_end_of_a_command(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, artifact = make(workshop, "true")
    answers = threading.Event()

    def remove(path: Path) -> None:
        if path.exists():  # not before the command, where nothing is there yet
            answers.wait(20)

    monkeypatch.setattr(command, "remove_tree", remove)
    monkeypatch.setattr(command, "_TIDY_S", 0.05)
    with trio.fail_after(10):
        result = await workshop.install(release, artifact)
    answers.set()
    assert result.installed


async def test_what_cannot_be_tidied_up_says_nothing_about_the_command(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(path: Path) -> None:
        if path.exists():
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(command, "remove_tree", remove)
    assert (await workshop.install(*make(workshop, "true"))).installed
