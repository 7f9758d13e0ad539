"""Releases, roots and real packages for the installers' tests."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from p2pdist.ids import ChannelName, InfoHash, ProductName, TargetPath
from p2pdist.install.archive import pack_tree
from p2pdist.install.installers import InstallLayout, InstallResult, install
from p2pdist.trust.catalog import AnyRecipe, Release, TreeRecipe


@dataclass
class Workshop:
    """One device's directories, and the making of what is installed there."""

    base: Path

    def __post_init__(self) -> None:
        self.root = self.base / "root"
        self.layout = InstallLayout(root=self.root, state=self.base / "state")
        self.artifacts = self.base / "artifacts"
        self.artifacts.mkdir()

    def release(
        self,
        recipe: AnyRecipe,
        artifact: Path,
        sequence: int = 1,
        *,
        product: str = "app",
        platform: str = "any",
    ) -> Release:
        data = artifact.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return Release(
            target=TargetPath(f"stable/{product}/{sequence}.0/{product}.bin"),
            channel=ChannelName("stable"),
            product=ProductName(product),
            version=f"{sequence}.0",
            sequence=sequence,
            platform=platform,
            length=len(data),
            sha256=digest,
            info_hash=InfoHash(digest),
            recipe=recipe,
        )

    def artifact(self, content: bytes, name: str = "") -> Path:
        path = self.artifacts / (name or hashlib.sha256(content).hexdigest()[:16])
        path.write_bytes(content)
        return path

    def tree(self, files: dict[str, str]) -> tuple[Path, TreeRecipe]:
        """Pack a tree; files with a first line ``#!`` are programs."""
        source = self.base / "source"
        shutil.rmtree(source, ignore_errors=True)
        for name, content in files.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            path.chmod(0o755 if content.startswith("#!") else 0o644)
        artifact = self.artifacts / f"tree-{len(list(self.artifacts.iterdir()))}"
        packed = pack_tree(source, artifact)
        return artifact, TreeRecipe(unpacked_bytes=packed.unpacked_bytes, entries=packed.entries)

    def deb(
        self,
        version: str = "1.0-1",
        *,
        name: str = "p2pdist-test",
        architecture: str = "all",
        postinst: str = "",
        control: str = "",
    ) -> Path:
        """A real Debian package, made by dpkg-deb."""
        source = self.base / "deb"
        shutil.rmtree(source, ignore_errors=True)
        (source / "DEBIAN").mkdir(parents=True)
        (source / "usr/share/p2pdist-test").mkdir(parents=True)
        (source / "usr/share/p2pdist-test/version").write_text(version)
        for number in range(5):
            (source / f"usr/share/p2pdist-test/file{number}").write_text(f"{version} {number}\n" * 1_000)
        (source / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
            f"Maintainer: Nobody <nobody@example.org>\nDescription: a test\n{control}"
        )
        if postinst:
            (source / "DEBIAN/postinst").write_text(postinst)
            (source / "DEBIAN/postinst").chmod(0o755)
        path = self.artifacts / f"{name}_{version}_{architecture}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", source, path],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return path

    async def install(self, release: Release, artifact: Path, attempt: str = "") -> InstallResult:
        return await install(release, artifact, layout=self.layout, attempt=attempt)


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty device."""
    return Workshop(tmp_path)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes an executable shell script."""

    def make(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make
