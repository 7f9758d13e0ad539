"""Single files: replaced at once, the old one back when its program does not take the new one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pdist.errors import Unavailable, UsageError
from p2pdist.trust.catalog import FileRecipe, Release

Workshop = Any
Script = Callable[[str, str], Path]

RELOAD = (
    'cat "$P2PDIST_ROOT/etc/app.conf" >> "$P2PDIST_ROOT/loaded"; grep -q good "$P2PDIST_ROOT/etc/app.conf"'
)


def make(
    workshop: Workshop, content: bytes, *, path: str = "/etc/app.conf", **options: Any
) -> tuple[Release, Path]:
    artifact = workshop.artifact(content)
    return workshop.release(FileRecipe(path=path, **options), artifact), artifact


def there(workshop: Workshop) -> list[str]:
    return sorted(path.name for path in (workshop.root / "etc").iterdir())


async def test_a_file_is_put_in_place_with_its_mode(workshop: Workshop) -> None:
    assert (await workshop.install(*make(workshop, b"one", mode=0o640))).installed
    path = workshop.root / "etc/app.conf"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one", 0o640)
    assert there(workshop) == ["app.conf"]


async def test_all_users_reach_a_file_in_a_new_directory_whatever_the_umask(workshop: Workshop) -> None:
    workshop.root.mkdir()
    before = os.umask(0o077)
    try:
        assert (await workshop.install(*make(workshop, b"one", path="/etc/app/app.conf"))).installed
    finally:
        os.umask(before)
    for name, mode in (("etc", 0o755), ("etc/app", 0o755), ("etc/app/app.conf", 0o644)):
        assert (workshop.root / name).stat().st_mode & 0o777 == mode, name


async def test_a_file_is_replaced_reloaded_and_keeps_its_owner(workshop: Workshop, script: Script) -> None:
    reload = [str(script("reload", RELOAD))]
    path = workshop.root / "etc/app.conf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"good old\n")
    if os.geteuid() == 0:
        os.chown(path, 1234, 1234)
    result = await workshop.install(*make(workshop, b"good new\n", reload=reload))
    assert result.installed
    assert path.read_bytes() == b"good new\n"
    assert path.stat().st_uid == (1234 if os.geteuid() == 0 else os.geteuid())
    assert (workshop.root / "loaded").read_bytes() == b"good new\n"
    assert there(workshop) == ["app.conf"]


async def test_a_failed_reload_brings_the_old_file_back_and_loads_it(
    workshop: Workshop, script: Script
) -> None:
    reload = [str(script("reload", RELOAD))]
    await workshop.install(*make(workshop, b"good old\n", reload=reload, mode=0o600))
    inode = (workshop.root / "etc/app.conf").stat().st_ino
    result = await workshop.install(*make(workshop, b"bad\n", reload=reload))
    assert result.failure == "the reload command ended with exit code 1"
    path = workshop.root / "etc/app.conf"
    assert (path.read_bytes(), path.stat().st_ino) == (b"good old\n", inode)
    assert (workshop.root / "loaded").read_bytes() == b"good old\nbad\ngood old\n"
    assert there(workshop) == ["app.conf"]


async def test_a_failed_reload_of_a_first_file_leaves_none(workshop: Workshop, script: Script) -> None:
    reload = [str(script("reload", RELOAD))]
    assert not (await workshop.install(*make(workshop, b"bad\n", reload=reload))).installed
    assert there(workshop) == []


async def test_a_symbolic_link_is_replaced_and_comes_back_as_a_link(
    workshop: Workshop, script: Script
) -> None:
    (workshop.root / "etc").mkdir(parents=True)
    (workshop.root / "etc/target").write_bytes(b"good target\n")
    (workshop.root / "etc/app.conf").symlink_to("target")
    await workshop.install(*make(workshop, b"bad\n", reload=[str(script("reload", RELOAD))]))
    assert (workshop.root / "etc/app.conf").is_symlink()
    await workshop.install(*make(workshop, b"good new\n"))
    assert not (workshop.root / "etc/app.conf").is_symlink()
    assert (workshop.root / "etc/target").read_bytes() == b"good target\n"


@pytest.mark.parametrize("path", ["/etc/../../evil", "/..", "/etc/", "/a/../b"])
async def test_a_path_that_climbs_or_names_no_file_is_refused(workshop: Workshop, path: str) -> None:
    with pytest.raises(UsageError):
        await workshop.install(*make(workshop, b"x", path=path))
    assert not (workshop.base / "evil").exists()


@pytest.mark.parametrize("path", ["/etc/app.conf", "/etc/sub/dir/app.conf"])
async def test_a_link_that_leads_out_of_the_root_is_not_followed(
    workshop: Workshop, tmp_path: Path, path: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    workshop.root.mkdir()
    (workshop.root / "etc").symlink_to(outside)
    with pytest.raises(UsageError, match="leaves the install root"):
        await workshop.install(*make(workshop, b"x", path=path))
    assert list(outside.iterdir()) == []


async def test_a_directory_in_the_file_s_place_is_not_replaced(workshop: Workshop) -> None:
    (workshop.root / "etc/app.conf").mkdir(parents=True)
    with pytest.raises(UsageError, match="is a directory"):
        await workshop.install(*make(workshop, b"x"))
    assert there(workshop) == ["app.conf"]


async def test_a_missing_artifact_leaves_the_old_file(workshop: Workshop) -> None:
    await workshop.install(*make(workshop, b"one"))
    release, artifact = make(workshop, b"two")
    artifact.unlink()
    with pytest.raises(Unavailable):
        await workshop.install(release, artifact)
    assert (workshop.root / "etc/app.conf").read_bytes() == b"one"
    assert there(workshop) == ["app.conf"]


async def test_a_name_as_long_as_names_can_be_is_fine(workshop: Workshop) -> None:
    name = "é" * 127
    assert (await workshop.install(*make(workshop, b"x", path=f"/etc/{name}"))).installed
    assert there(workshop) == [name]
