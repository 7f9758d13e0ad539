"""How the agent is described as a service."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path

from p2pdist.duties.deploy.service import CONFIG, FILES, PROGRAM, UNPACKED

UNIT = Path(__file__).parents[3] / "seeds" / "systemd" / "p2pdist-agent.service"


def read(text: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # the library's own recipe for keys with case
    unit.read_string(text)
    return unit


def test_the_unit_differs_from_that_of_an_installed_package_only_by_what_one_file_needs() -> None:
    ours, theirs = read(FILES["systemd"][2]), read(UNIT.read_text())
    assert ours["Unit"] == theirs["Unit"] and ours["Install"] == theirs["Install"]
    assert set(ours["Service"].items()) - set(theirs["Service"].items()) == {
        ("NotifyAccess", "all"),
        ("Environment", f"TMPDIR={UNPACKED}"),
        ("ExecStartPre", f"-/bin/sh -c 'rm -rf {UNPACKED}/_MEI*'"),
        ("ExecStart", f"{PROGRAM} run --config {CONFIG}"),
        ("CacheDirectory", "p2pdist"),
        ("CacheDirectoryMode", "0700"),
    }


def test_the_script_is_one_that_a_plain_shell_reads() -> None:
    subprocess.run(["sh", "-n"], input=FILES["init"][2], text=True, check=True)
