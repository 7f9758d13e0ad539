"""tools/bench wan, small: that every system brings the package and is measured, not how fast it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "tools" / "benchmarks" / "wan.py"
SYSTEMS = ("http", "cache", "bittorrent", "p2pdist")


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces take root")
def test_all_systems_are_measured_on_the_same_links_and_saved(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, str(BENCHMARK), "--sites", "1", "--devices", "1", "--size", "1", "--json",
            "--origin-up", "50", "--site-down", "50", "--settle", "0.5",
            "--output", str(tmp_path / "results"),
        ],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    result = json.loads(done.stdout)
    assert result["bound_seconds"] == pytest.approx(1024 * 1024 * 8 / 50e6)
    assert result["failed"] == {}
    assert tuple(result["systems"]) == SYSTEMS
    for system in result["systems"].values():
        assert 0 < result["bound_seconds"] <= system["seconds_first"] + 0.01
        assert system["seconds_first"] <= system["seconds_last"]
        assert system["ratio"] == pytest.approx(system["seconds_last"] / result["bound_seconds"], rel=0.1)
        assert system["origin_copies"] >= 1
        assert [copies >= 1 for copies in system["site_in_copies"]] == [True]
        assert len(system["site_out_copies"]) == 1
    assert {path.suffix for path in (tmp_path / "results").iterdir()} == {".json", ".png"}
    (saved,) = (tmp_path / "results").glob("*.json")
    assert json.loads(saved.read_text()) == result
