"""tools/demo as a user runs it: real processes on loopback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
from demorun import check_that_a_signal_ends_everything, command, environment, processes_in


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_package_reaches_the_device_and_all_four_attacks_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--sites", "1", "--devices", "1", "--uplink", "0", "--json"),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    outcome = json.loads(done.stdout)
    assert (outcome["devices"], outcome["installed"], outcome["failed"]) == (1, 1, 0)
    assert outcome["package_bytes"] > 20_000_000
    assert outcome["origin_bytes_sent"] >= outcome["package_bytes"]
    assert outcome["devices_received"]["point"] > 0
    unnamed = outcome["unattributed_bytes"]
    assert sum(outcome["devices_received"].values()) + unnamed["device"] == outcome["package_bytes"]
    by_points = sum(outcome["bytes_by_source"].values()) - sum(outcome["devices_received"].values())
    assert by_points + unnamed["point"] == outcome["package_bytes"]
    assert outcome["origin_bytes_lost"] < 0.02 * outcome["origin_bytes_sent"]
    assert {r["attack"] for r in outcome["refused"]} == set(outcome["attacks"])
    assert len(outcome["attacks"]) == 4
    assert all(r["reason"] for r in outcome["refused"])
    (altered,) = [r["reason"] for r in outcome["refused"] if r["attack"] == "altered package"]
    assert altered == "the admin server's copy is not what was signed"
    assert re.search(r"piece \d+ from site1-point does not match its signed hash", done.stderr)
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


@pytest.mark.slow
def test_programs_are_told_why_it_cannot_go_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken.deb"
    broken.write_text("no archive")
    done = subprocess.run(
        command("--sites", "1", "--devices", "1", "--package", str(broken), "--json"),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    outcome = json.loads(done.stdout)
    assert outcome["ok"] is False
    assert outcome["installed"] == 0
    (problem,) = outcome["problems"]
    assert "broken.deb" in problem
    assert "cannot go on" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_interruption_ends_every_process_and_removes_every_file(tmp_path: Path) -> None:
    check_that_a_signal_ends_everything(tmp_path, signal.SIGINT, "--sites", "1", "--devices", "1")
