"""Debian packages, with the real dpkg, into a root of their own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pdist.errors import Unavailable, UsageError
from p2pdist.trust.catalog import DebRecipe, Release

Workshop = Any

pytestmark = [
    pytest.mark.slow,  # real packages, and dpkg itself
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not here"),
]

LOGGED = '#!/bin/sh\necho "$1 $2" >> "$DPKG_ROOT/configured"\n'


def make(
    workshop: Workshop, version: str = "1.0-1", sequence: int = 1, **options: str
) -> tuple[Release, Path]:
    artifact = workshop.deb(version, **options)
    recipe = DebRecipe(package="p2pdist-test", version=version, architecture="all")
    return workshop.release(recipe, artifact, sequence), artifact


def installed_version(workshop: Workshop) -> str:
    return str((workshop.root / "usr/share/p2pdist-test/version").read_text())


def status(workshop: Workshop) -> str:
    form = "--showformat=${db:Status-Abbrev}${Version}"
    query = ["dpkg-query", f"--root={workshop.root}", "--show", form, "p2pdist-test"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout


async def test_a_package_is_installed_into_the_device_s_own_root(workshop: Workshop) -> None:
    result = await workshop.install(*make(workshop, postinst=LOGGED))
    assert (result.exit_code, result.failure) == (0, "")
    assert b"Setting up p2pdist-test (1.0-1)" in result.output
    assert installed_version(workshop) == "1.0-1"
    assert (workshop.root / "configured").read_text() == "configure \n"
    assert status(workshop) == "ii 1.0-1"
    machine = subprocess.run(["dpkg-query", "-W", "p2pdist-test"], capture_output=True, check=False)
    assert machine.returncode != 0, "it went into this machine's own database"


async def test_a_package_that_is_installed_already_is_not_installed_again(workshop: Workshop) -> None:
    for _ in range(2):
        assert (await workshop.install(*make(workshop, postinst=LOGGED))).installed
    assert (workshop.root / "configured").read_text() == "configure \n"


async def test_an_upgrade_and_a_signed_downgrade_are_both_carried_out(workshop: Workshop) -> None:
    for sequence, version in enumerate(("1.0-1", "2.0-1", "1.0-1"), 1):
        assert (await workshop.install(*make(workshop, version, sequence))).installed
        assert installed_version(workshop) == version


async def test_a_first_installation_that_fails_is_purged_and_reported_with_its_output(
    workshop: Workshop,
) -> None:
    result = await workshop.install(*make(workshop, postinst="#!/bin/sh\necho no luck\nexit 9\n"))
    assert result.failure == "dpkg ended with exit code 1"
    assert b"no luck" in result.output
    assert status(workshop) == ""
    assert not (workshop.root / "usr/share/p2pdist-test/version").exists()
    assert (await workshop.install(*make(workshop))).installed


async def test_a_package_that_is_not_the_signed_one_is_not_installed(workshop: Workshop) -> None:
    release, artifact = make(workshop, "2.0-1")
    assert isinstance(release.recipe, DebRecipe)
    for wrong in ({"version": "1.0-1"}, {"package": "another"}, {"architecture": "amd64"}):
        recipe = msgspec.structs.replace(release.recipe, **wrong)
        result = await workshop.install(msgspec.structs.replace(release, recipe=recipe), artifact)
        assert "was signed" in result.failure
    assert status(workshop) == ""


async def test_an_artifact_that_is_no_package_is_a_failure(workshop: Workshop) -> None:
    recipe = DebRecipe(package="p2pdist-test", version="1", architecture="all")
    artifact = workshop.artifact(b"not a package")
    result = await workshop.install(workshop.release(recipe, artifact), artifact)
    assert result.failure.startswith("dpkg-deb ended with exit code")


async def test_missing_dependencies_are_reported_and_not_forced(workshop: Workshop) -> None:
    result = await workshop.install(*make(workshop, control="Depends: something-else (>= 1)\n"))
    assert not result.installed
    assert b"something-else" in result.output


AS_NOBODY = """
import os, sys, msgspec, trio
from pathlib import Path
from p2pdist.install.installers import InstallLayout, install
from p2pdist.trust.catalog import Release

os.chdir(sys.argv[1])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
release = msgspec.json.decode(Path("release").read_bytes(), type=Release)
layout = InstallLayout(root=Path("root"), state=Path("state"))
result = trio.run(lambda: install(release, Path("artifact"), layout=layout))
print(result.failure, result.output.decode())
sys.exit(not result.installed)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else takes root")
def test_an_unprivileged_agent_installs_into_a_root_that_it_owns(workshop: Workshop) -> None:
    release, artifact = make(workshop)
    with tempfile.TemporaryDirectory() as name:
        shared = Path(name)
        shutil.copyfile(artifact, shared / "artifact")
        (shared / "release").write_bytes(msgspec.json.encode(release))
        for path in (shared, shared / "artifact", shared / "release"):
            os.chown(path, 65534, 65534)
        ran = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, shared], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        installed = shared / "root/usr/share/p2pdist-test/version"
        assert (installed.read_text(), installed.stat().st_uid) == ("1.0-1", 65534)


@pytest.mark.parametrize("name", ["lock-frontend", "lock"])
async def test_a_dpkg_that_another_program_holds_is_waited_out_and_nothing_is_purged(
    workshop: Workshop, name: str
) -> None:
    database = workshop.root / "var/lib/dpkg"
    database.mkdir(parents=True)
    with (database / name).open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="locked by another process"):
            await workshop.install(*make(workshop, postinst=LOGGED))
    assert not (workshop.root / "var/log/dpkg.log").exists(), "dpkg was run again, to purge"
    assert (await workshop.install(*make(workshop, postinst=LOGGED))).installed


async def test_a_script_that_complains_of_a_lock_has_failed_all_the_same(workshop: Workshop) -> None:
    complaint = "dpkg: error: dpkg frontend lock was locked by another process with pid 1"
    result = await workshop.install(*make(workshop, postinst=f"#!/bin/sh\necho '{complaint}'\nexit 2\n"))
    assert result.failure == "dpkg ended with exit code 1"


@pytest.mark.parametrize("link", ["var", "var/lib", "var/log"])
async def test_a_database_that_a_link_leads_out_of_the_root_is_refused_before_anything_is_made(
    workshop: Workshop, link: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (workshop.root / link).parent.mkdir(parents=True)
    (workshop.root / link).symlink_to(outside)
    with pytest.raises(UsageError, match="leaves the install root"):
        await workshop.install(*make(workshop))
    assert not list(outside.iterdir())
