"""How the agent is described as a service."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from p2pdist.duties.deploy.service import CONFIG, FILES, GUARD_PROGRAM, PLACE, UNPACKED, Manager

SEEDS = Path(__file__).parents[3] / "seeds"
UNIT = SEEDS / "systemd" / "p2pdist-agent.service"


def read(text: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # the library's own recipe for keys with case
    unit.read_string(text)
    return unit


def test_the_unit_differs_from_that_of_an_installed_package_only_by_what_one_file_needs() -> None:
    ours, theirs = read(FILES["systemd"][-1][2]), read(UNIT.read_text())
    assert ours["Unit"] == theirs["Unit"] and ours["Install"] == theirs["Install"]
    assert set(ours["Service"].items()) - set(theirs["Service"].items()) == {
        ("NotifyAccess", "all"),
        ("Environment", f"TMPDIR={UNPACKED}"),
        ("ExecStart", f"{GUARD_PROGRAM} {PLACE} run --config {CONFIG}"),
        ("KillMode", "mixed"),
        ("CacheDirectory", "p2pdist"),
        ("CacheDirectoryMode", "0700"),
    }


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "p2pdist-agent.service"
    unit.write_text(FILES["systemd"][-1][2].replace(GUARD_PROGRAM, "/bin/true"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in checked.stderr.splitlines() if str(unit) in line] == []


def test_scripts_are_such_that_a_plain_shell_reads() -> None:
    for _, _, content in FILES["init"]:
        subprocess.run(["sh", "-n"], input=content, text=True, check=True)


@pytest.mark.parametrize("manager", ["systemd", "init"])
def test_the_same_files_are_there_for_who_installs_the_agent_by_other_means(manager: Manager) -> None:
    for path, mode, content in FILES[manager]:
        file = SEEDS / "one-file" / Path(path).name
        if path.startswith("/etc/init.d/"):
            file = file.with_name("p2pdist-agent.init")
        assert file.read_text() == content, path
        assert os.access(file, os.X_OK) == (mode == "755"), path
