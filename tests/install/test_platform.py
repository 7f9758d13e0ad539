"""What fits this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from p2pdist.install.platform import Machine, detect_machine, detect_platform, matches


def test_this_machine_is_named_the_way_releases_name_it() -> None:
    system, architecture = detect_platform().split("-")
    assert system == os.uname().sysname.lower()
    assert architecture.replace("_", "").isalnum()
    assert architecture not in ("amd64", "arm64")


@pytest.mark.parametrize("fits", ["any", "linux", "linux-x86_64"])
def test_a_release_fits_by_system_or_by_both(fits: str) -> None:
    assert matches("linux-x86_64", fits)


@pytest.mark.parametrize("other", ["linux-aarch64", "windows", "windows-x86_64", "lin", "linux-x86", ""])
def test_a_release_for_another_platform_does_not_fit(other: str) -> None:
    assert not matches("linux-x86_64", other)


def test_a_machine_without_dpkg_has_no_deb_architectures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert detect_machine() == Machine(platform=detect_platform(), deb_architectures=())


def test_a_dpkg_that_does_not_work_counts_as_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for tool in ("dpkg", "dpkg-deb", "dpkg-query"):
        (tmp_path / tool).write_text("#!/bin/sh\nexit 2\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert detect_machine().deb_architectures == ()


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not here")
def test_dpkg_says_which_architectures_it_takes() -> None:
    assert len(detect_machine().deb_architectures) >= 1
