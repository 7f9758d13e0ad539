"""tools/bench gateway, small: that everything is measured, not how fast it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "tools" / "benchmarks" / "gateway.py"
CONNECTIONS = 60


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARK), "--output", str(directory / "results"), *arguments],
        env={**os.environ, "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("gateway")
    done = run(
        directory, "--connections", str(CONNECTIONS), "--rounds", "1", "--settle", "0.5", "--json",
        "--only", "p2pdist", "--only", "trio",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    assert [path.name for path in directory.iterdir()] == ["results"], "it left something behind"
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_it_says_what_a_connection_costs_and_how_fast_news_spread(measured: dict[str, Any]) -> None:
    assert measured["connections"] == CONNECTIONS
    for name in (
        "bytes_per_connection",
        "fanout_seconds_p50",
        "fanout_seconds_p99",
        "metadata_seconds_p99",
        "envelope_seconds_p99",
        "handshakes_per_second",
        "return_seconds",
    ):
        assert measured[name] > 0, name
    assert measured["fanout_seconds_p50"] <= measured["fanout_seconds_p99"] <= measured["fanout_seconds_max"]


@pytest.mark.slow
def test_peers_are_measured_in_the_same_run(measured: dict[str, Any]) -> None:
    peer = measured["peers"]["trio"]
    assert peer["handshakes_per_second"] > 0
    assert peer["fanout_seconds_p50"] <= peer["fanout_seconds_p99"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--connections", "1"], ["--rounds", "0"], ["--connections", "1000000"]]
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    arguments: list[str], tmp_path: Path
) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode != 0
    assert done.stdout == ""
