"""tools/demo --network lab as a user runs it: real processes in a laboratory of networks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from demo_fleet.lab import BARE, KINDS, open_lab
from demo_fleet.newcomers import open_newcomers
from demo_fleet.plan import make_plan
from demo_fleet.vendor import why_no_vendor
from demorun import check_that_a_signal_ends_everything, command, environment, processes_in
from laboratory import machines
from laboratory.machines import why_no_machines
from laboratory.namespaces import why_not

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(600)]


BEST_PATHS = {"open": "direct", "port-restricted": "punched", "symmetric": "punched", "dmz": "relayed"}
"""From an operator in the open."""


@pytest.fixture(autouse=True)
def laboratory() -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


def test_devices_behind_everything_install_and_the_path_of_each_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--network", "lab", "--devices", "1", "--uplink", "0", "--json", "--keep"),
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    (directory,) = tmp_path.iterdir()
    try:
        assert done.returncode == 0, done.stderr[-4_000:]
        outcome = json.loads(done.stdout)
        assert outcome["ok"], outcome["problems"]
        assert (outcome["network"], outcome["sites"]) == ("lab", len(KINDS))
        assert outcome["installed"] == outcome["devices"] == len(KINDS)
        paths = outcome["paths"]
        assert [path["network"] for path in paths] == list(KINDS)
        for number, path in enumerate(paths, 1):
            assert path["control"] == [f"site{number}-pc1", f"site{number}-point", "server"]
            assert path["session"]["path"] == BEST_PATHS[path["network"]], path["session"]["reason"]
        received = (
            sum(sum(path["content"].values()) for path in paths) + outcome["unattributed_bytes"]["device"]
        )
        assert received == len(KINDS) * outcome["package_bytes"]
        assert {r["attack"] for r in outcome["refused"]} == set(outcome["attacks"])
        check_duties(outcome)
        assert any("p2pdist-agent" in line for line in processes_in(tmp_path)), "it was to be kept"
    finally:
        subprocess.run([str(directory / "end")], check=True)
    assert list(tmp_path.iterdir()) == []
    _wait_all_ended(tmp_path)


def check_duties(outcome: dict[str, Any]) -> None:
    """Hidden networks were polled, and the machines in them got the agent, an update and wakes."""
    polls = {poll["network"]: poll for poll in outcome["discovered"]}
    assert list(polls) == [kind for kind in KINDS if kind != "open"]
    if why_no_machines() or why_no_vendor():
        assert outcome["left_out"]
        return
    arrivals = outcome["arrivals"]
    assert {kind: sum(each["network"] == kind for each in arrivals) for kind in BARE} == BARE
    for kind in BARE:
        assert polls[kind]["managed"] == [f"site{polls[kind]['site']}-pc1"]
        known = {each["device"] for each in arrivals if each["network"] == kind}
        assert known <= set(polls[kind]["unmanaged"])
    for each in arrivals:
        assert (each["state"], each["updated"], each["way"]) == ("done", True, "point"), each
    mirror = outcome["mirror"]
    assert mirror["origin_sent"] == 0
    assert mirror["bytes"] <= mirror["mirror_sent"] < 1.5 * mirror["bytes"], "read about once for all"
    assert mirror["points"] == len(KINDS)
    assert mirror["installed"] == mirror["devices"] == len(KINDS) + len(arrivals)


@pytest.mark.skipif(bool(why_no_machines()), reason=why_no_machines())
async def test_where_a_bare_machine_does_not_start_there_are_none_and_the_reason_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "_BUILD", "echo no overlay here >&2; exit 1")
    with open_lab(devices=1) as network:
        plan = make_plan(tmp_path, network)
        assert len(plan.newcomers) == sum(BARE.values())
        async with open_newcomers(plan) as newcomers:
            assert "no overlay here" in newcomers.missing
            assert newcomers.arrivals == {}
            assert newcomers.managed == []


def test_a_signal_ends_every_process_and_removes_every_file(tmp_path: Path) -> None:
    check_that_a_signal_ends_everything(tmp_path, signal.SIGTERM, "--network", "lab", "--devices", "1")


def test_it_says_what_lacks_where_there_can_be_no_laboratory(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--network", "lab"),
        env=environment(tmp_path) | {"PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "iproute2" in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def _wait_all_ended(directory: Path) -> None:
    deadline = time.monotonic() + 10
    while processes_in(directory) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_in(directory) == []
