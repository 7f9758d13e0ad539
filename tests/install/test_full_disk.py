"""Installers on a disk that is full: what was there stays, and the work goes on when there is room."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pdist.errors import Unavailable
from p2pdist.trust.catalog import CommandRecipe, DebRecipe, FileRecipe
from tests.fleet.small_disk import SmallDisk, needs_mount, small_disk

Workshop = Any

KIB = 1 << 10
FULL = r"No space left.*free some space"

pytestmark = needs_mount


@pytest.fixture
def root_disk(workshop: Workshop) -> Iterator[SmallDisk]:
    with small_disk(workshop.root, 4 << 20) as disk:
        yield disk


@pytest.fixture
def state_disk(workshop: Workshop) -> Iterator[SmallDisk]:
    with small_disk(workshop.layout.state, 4 << 20) as disk:
        yield disk


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - {"ballast"}


async def test_a_file_that_does_not_fit_leaves_the_old_one_and_is_put_in_place_when_it_does(
    workshop: Workshop, root_disk: SmallDisk
) -> None:
    place = workshop.root / "app.conf"
    place.write_bytes(b"old")
    artifact = workshop.artifact(bytes(256 * KIB))
    release = workshop.release(FileRecipe(path="/app.conf"), artifact)
    root_disk.fill(leave_bytes=64 * KIB)
    with pytest.raises(Unavailable, match=FULL):
        await workshop.install(release, artifact, "1")
    assert place.read_bytes() == b"old"
    assert files(workshop.root) == {"app.conf"}
    root_disk.relieve()
    assert (await workshop.install(release, artifact, "1")).installed
    assert place.read_bytes() == bytes(256 * KIB)


async def test_a_command_whose_artifact_does_not_fit_is_not_run_and_runs_once_when_it_does(
    workshop: Workshop, state_disk: SmallDisk
) -> None:
    artifact = workshop.artifact(b'#!/bin/sh\necho ran >>"$P2PDIST_ROOT/log"\nexit\n' + bytes(256 * KIB))
    release = workshop.release(CommandRecipe(arguments=["{artifact}"]), artifact)
    state_disk.fill(leave_bytes=64 * KIB)
    with pytest.raises(Unavailable, match=FULL):
        await workshop.install(release, artifact, "1")
    assert not (workshop.root / "log").exists()
    assert not list(workshop.layout.state.glob("*.scratch"))
    state_disk.relieve()
    assert (await workshop.install(release, artifact, "1")).installed
    assert (workshop.root / "log").read_text() == "ran\n"


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not here")
@pytest.mark.parametrize("before", [None, "1.0-1"])
async def test_a_package_that_does_not_fit_leaves_what_was_there_and_is_installed_when_it_does(
    before: str | None, workshop: Workshop, root_disk: SmallDisk
) -> None:
    shown = workshop.root / "usr/share/p2pdist-test/version"
    if before is not None:
        await workshop.install(*package(workshop, before, 1))
    release, artifact = package(workshop, "2.0-1", 2)
    root_disk.fill(leave_bytes=24 * KIB)
    with pytest.raises(Unavailable, match=FULL):
        await workshop.install(release, artifact, "1")
    assert (shown.read_text() if shown.exists() else None) == before
    root_disk.relieve()
    assert (await workshop.install(release, artifact, "1")).installed
    assert shown.read_text() == "2.0-1"


def package(workshop: Workshop, version: str, sequence: int) -> Any:
    artifact = workshop.deb(version)
    recipe = DebRecipe(package="p2pdist-test", version=version, architecture="all")
    return workshop.release(recipe, artifact, sequence), artifact
