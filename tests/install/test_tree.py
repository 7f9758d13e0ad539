"""Trees: side by side, switched at once, back when they do not work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from p2pdist.errors import TrustError, Unavailable, UsageError
from p2pdist.trust.catalog import Release, TreeRecipe

Workshop = Any

HEALTHY = "#!/bin/sh\necho checked $(cat version)\n"
SICK = "#!/bin/sh\necho this version is sick\nexit 4\n"


def make(
    workshop: Workshop, sequence: int, *, check: str = HEALTHY, keep: int = 1, timeout_s: int = 60
) -> tuple[Release, Path]:
    artifact, recipe = workshop.tree({"version": f"{sequence}", "bin/check": check})
    recipe = msgspec.structs.replace(recipe, health_check=["bin/check"], keep=keep, timeout_s=timeout_s)
    return workshop.release(recipe, artifact, sequence), artifact


def current(workshop: Workshop) -> str:
    return str((workshop.root / "opt/app/current/version").read_text())


def versions(workshop: Workshop) -> list[str]:
    return sorted(path.name for path in (workshop.root / "opt/app/versions").iterdir() if path.name[0] != ".")


async def test_a_tree_is_unpacked_switched_and_checked(workshop: Workshop) -> None:
    result = await workshop.install(*make(workshop, 1))
    assert (result.exit_code, result.output, result.failure) == (0, b"checked 1\n", "")
    assert os.readlink(workshop.root / "opt/app/current") == "versions/1-1.0"  # noqa: PTH115
    assert current(workshop) == "1"


async def test_all_users_reach_a_tree_whatever_the_umask_of_the_installer(workshop: Workshop) -> None:
    workshop.root.mkdir()
    before = os.umask(0o077)
    try:
        assert (await workshop.install(*make(workshop, 1))).installed
    finally:
        os.umask(before)
    for name in ("opt", "opt/app", "opt/app/versions", "opt/app/current/bin"):
        assert (workshop.root / name).stat().st_mode & 0o777 == 0o755, name


async def test_a_newer_tree_takes_over_and_older_ones_go(workshop: Workshop) -> None:
    for sequence in (1, 2, 3, 4):
        assert (await workshop.install(*make(workshop, sequence, keep=2))).installed
    assert current(workshop) == "4"
    assert versions(workshop) == ["2-1.0".replace("1.0", "2.0"), "3-3.0", "4-4.0"]
    assert (await workshop.install(*make(workshop, 5, keep=0))).installed
    assert versions(workshop) == ["5-5.0"]
    assert sorted(os.listdir(workshop.root / "opt/app/versions")) == [".5-5.0.artifact", "5-5.0"]  # noqa: PTH208


async def test_a_sick_version_is_taken_back_with_its_output(workshop: Workshop) -> None:
    await workshop.install(*make(workshop, 1))
    result = await workshop.install(*make(workshop, 2, check=SICK))
    assert result.failure == "the health check ended with exit code 4"
    assert (result.exit_code, result.output) == (4, b"this version is sick\n")
    assert current(workshop) == "1"
    assert versions(workshop) == ["1-1.0"]


async def test_a_first_version_that_is_sick_leaves_nothing_in_use(workshop: Workshop) -> None:
    result = await workshop.install(*make(workshop, 1, check=SICK))
    assert not result.installed
    assert not os.path.lexists(workshop.root / "opt/app/current")
    assert versions(workshop) == []


async def test_a_check_that_does_not_finish_counts_as_failed(workshop: Workshop) -> None:
    await workshop.install(*make(workshop, 1))
    result = await workshop.install(*make(workshop, 2, check="#!/bin/sh\nsleep 1000\n", timeout_s=1))
    assert "did not finish within 1 s" in result.failure
    assert current(workshop) == "1"


async def test_a_check_that_is_missing_from_the_tree_counts_as_failed(workshop: Workshop) -> None:
    artifact, recipe = workshop.tree({"version": "1"})
    release = workshop.release(msgspec.structs.replace(recipe, health_check=["bin/check"]), artifact)
    assert "could not be started" in (await workshop.install(release, artifact)).failure


async def test_installing_what_is_current_does_nothing(workshop: Workshop) -> None:
    release, artifact = make(workshop, 1)
    await workshop.install(release, artifact)
    before = (workshop.root / "opt/app/versions/1-1.0").stat().st_mtime_ns
    artifact.unlink()
    assert (await workshop.install(release, artifact)).installed
    assert (workshop.root / "opt/app/versions/1-1.0").stat().st_mtime_ns == before


async def test_an_older_version_that_is_still_there_needs_no_unpacking(workshop: Workshop) -> None:
    old, artifact = make(workshop, 1)
    await workshop.install(old, artifact)
    await workshop.install(*make(workshop, 2))
    artifact.unlink()
    assert (await workshop.install(old, artifact)).installed
    assert current(workshop) == "1"


async def test_other_bytes_under_the_same_sequence_and_version_are_not_taken_for_installed(
    workshop: Workshop,
) -> None:
    await workshop.install(*make(workshop, 1))
    artifact, recipe = workshop.tree({"version": "other"})
    assert (await workshop.install(workshop.release(recipe, artifact, 1), artifact)).installed
    assert current(workshop) == "other"


async def test_an_attempt_that_has_ended_gives_its_result_again_without_work(workshop: Workshop) -> None:
    await workshop.install(*make(workshop, 1), attempt="first")
    release, artifact = make(workshop, 2, check=SICK)
    failed = await workshop.install(release, artifact, attempt="second")
    artifact.unlink()
    assert await workshop.install(release, artifact, attempt="second") == failed
    with pytest.raises(Unavailable):  # another attempt is a new try, and finds no artifact
        await workshop.install(release, artifact, attempt="third")
    assert current(workshop) == "1"


async def test_an_archive_that_breaks_its_recipe_leaves_the_version_before(workshop: Workshop) -> None:
    await workshop.install(*make(workshop, 1))
    release, artifact = make(workshop, 2)
    assert isinstance(release.recipe, TreeRecipe)
    small = msgspec.structs.replace(release, recipe=msgspec.structs.replace(release.recipe, entries=1))
    with pytest.raises(TrustError):
        await workshop.install(small, artifact)
    assert (current(workshop), versions(workshop)) == ("1", ["1-1.0"])


async def test_a_directory_where_the_link_should_be_is_not_touched(workshop: Workshop) -> None:
    (workshop.root / "opt/app/current").mkdir(parents=True)
    with pytest.raises(Unavailable, match="is not a symbolic link"):
        await workshop.install(*make(workshop, 1))
    assert (workshop.root / "opt/app/current").is_dir()


async def test_a_version_with_odd_characters_stays_in_its_directory(workshop: Workshop) -> None:
    artifact, recipe = workshop.tree({"version": "odd"})
    release = msgspec.structs.replace(workshop.release(recipe, artifact), version="../../1.0 beta/..")
    await workshop.install(release, artifact)
    assert versions(workshop) == ["1-.._.._1.0_beta_.."]
    assert sorted(path.name for path in (workshop.root / "opt").iterdir()) == ["app"]


async def test_a_stop_while_a_tree_is_unpacked_leaves_nothing_and_can_be_repeated(workshop: Workshop) -> None:
    artifact, recipe = workshop.tree({f"file{number:04}": "x" for number in range(800)})
    release = workshop.release(recipe, artifact)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workshop.install, release, artifact)
        while not list(workshop.root.glob("opt/app/versions/.*.unpacking/file*")):
            await trio.sleep(0.001)  # the file system does not say when
        nursery.cancel_scope.cancel()
    assert not list(workshop.root.glob("opt/app/versions/*unpacking"))
    assert not os.path.lexists(workshop.root / "opt/app/current")
    assert (await workshop.install(release, artifact)).installed


async def test_a_root_that_cannot_be_written_is_not_now(workshop: Workshop) -> None:
    workshop.root.write_bytes(b"this is no directory")
    release, artifact = make(workshop, 1)
    with pytest.raises(Unavailable):
        await workshop.install(release, artifact)


async def test_a_link_that_leads_out_of_the_root_is_refused_before_anything_is_made(
    workshop: Workshop, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    workshop.root.mkdir()
    (workshop.root / "opt").symlink_to(outside)
    with pytest.raises(UsageError, match="leaves the install root"):
        await workshop.install(*make(workshop, 1))
    assert not list(outside.iterdir())
