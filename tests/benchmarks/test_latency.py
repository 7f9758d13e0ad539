"""tools/bench latency, small: that everything is measured, not how fast it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "tools" / "benchmarks" / "latency.py"


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARK), "--output", str(directory / "results"), *arguments],
        env={**os.environ, "TMPDIR": str(directory), "PYTHONPATH": str(ROOT / "tools")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_it_says_how_long_an_update_takes_and_what_was_said_for_it(tmp_path: Path) -> None:
    done = run(tmp_path, "--sites", "1", "--devices", "2", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr[-4_000:]
    assert [path.name for path in tmp_path.iterdir()] == ["results"], "it left something behind"
    result = json.loads(done.stdout)
    assert result["devices"] == 2
    assert 0 < result["seconds_p50"] <= result["seconds_p99"] <= result["seconds_max"]
    decoded = result["decoded_per_update"]
    assert 2 <= decoded["devices"]["DesiredState"] <= 6  # one for each; more where a heartbeat fell between
    assert decoded["server"]["Report"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--sites", "0"], ["--rounds", "0"], ["--bytes", "0"]])
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    arguments: list[str], tmp_path: Path
) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
