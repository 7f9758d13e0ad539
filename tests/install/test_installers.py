"""The door: what is refused before it is fetched, and what holds for every installer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from p2pdist.errors import Unavailable, UsageError
from p2pdist.files import locked
from p2pdist.install.installers import check_installable
from p2pdist.install.platform import Machine
from p2pdist.trust.catalog import CommandRecipe, DebRecipe, FileRecipe

Workshop = Any
LINUX = Machine(platform="linux-x86_64", deb_architectures=("amd64", "i386"))


@pytest.mark.parametrize("platform", ["any", "linux", "linux-x86_64"])
def test_what_fits_passes(workshop: Workshop, platform: str) -> None:
    artifact = workshop.artifact(b"x")
    for recipe in (
        CommandRecipe(arguments=["true"]),
        FileRecipe(path="/etc/x"),
        DebRecipe(package="xx", version="1", architecture="amd64"),
        DebRecipe(package="xx", version="1", architecture="i386"),
        DebRecipe(package="xx", version="1", architecture="all"),
    ):
        check_installable(workshop.release(recipe, artifact, platform=platform), machine=LINUX)


def test_another_platform_is_refused(workshop: Workshop) -> None:
    artifact = workshop.artifact(b"x")
    release = workshop.release(CommandRecipe(arguments=["true"]), artifact, platform="windows")
    with pytest.raises(UsageError, match="is for windows, this machine is linux-x86_64"):
        check_installable(release, machine=LINUX)


def test_a_debian_package_of_another_architecture_or_without_dpkg_is_refused(workshop: Workshop) -> None:
    artifact = workshop.artifact(b"x")
    release = workshop.release(DebRecipe(package="xx", version="1", architecture="arm64"), artifact)
    with pytest.raises(UsageError, match="is for arm64, dpkg here takes amd64, i386"):
        check_installable(release, machine=LINUX)
    with pytest.raises(UsageError, match="has no dpkg"):
        check_installable(release, machine=Machine(platform="linux-x86_64"))


def test_a_file_path_that_climbs_and_a_product_that_is_no_name_are_refused(workshop: Workshop) -> None:
    artifact = workshop.artifact(b"x")
    with pytest.raises(UsageError):
        check_installable(workshop.release(FileRecipe(path="/a/../b"), artifact), machine=LINUX)
    release = workshop.release(CommandRecipe(arguments=["true"]), artifact)
    with pytest.raises(UsageError):
        check_installable(msgspec.structs.replace(release, product="../x"), machine=LINUX)


async def test_two_installers_do_not_work_on_one_device_at_once(workshop: Workshop) -> None:
    artifact = workshop.artifact(b"x")
    release = workshop.release(CommandRecipe(arguments=["true"]), artifact)
    await workshop.install(release, artifact)
    with locked(workshop.layout.state / "lock", what="the state"), pytest.raises(Unavailable, match="in use"):
        await workshop.install(release, artifact)


async def test_a_damaged_step_is_named_with_what_to_do(workshop: Workshop) -> None:
    artifact = workshop.artifact(b"x")
    release = workshop.release(CommandRecipe(arguments=["true"]), artifact)
    workshop.layout.state.mkdir()
    for junk in (b"", b"{}", b"\xff\xfe", b'{"phase": 3}', bytes(400_000)):
        (workshop.layout.state / "stable@app.json").write_bytes(junk)
        with pytest.raises(Unavailable, match=r"damaged.*remove the file"):
            await workshop.install(release, artifact)
