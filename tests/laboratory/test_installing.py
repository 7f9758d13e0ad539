"""The agent onto a bare machine behind a NAT, through the distribution point that stands beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from lab_fleet import POINTS, LabFleet
from laboratory.network import Laboratory

sys.path += [str(Path(__file__).parents[1] / "duties/deploy")]

from bare import PASSWORD, BareMachine, holding, needs_machines
from test_built_agent import agent  # noqa: F401, a fixture: built once for all of a test run

from p2pdist.install.platform import detect_platform

pytestmark = [*needs_machines, pytest.mark.timeout(600)]


def test_a_machine_gets_the_agent_through_its_point_also_if_that_is_killed_in_the_middle(
    agent: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "fleet").mkdir()
    with Laboratory() as laboratory, LabFleet(tmp_path / "fleet", laboratory.server) as fleet:
        point, bare = laboratory.add("port-restricted", hosts=2).hosts
        fleet.found()
        fleet.enrol("point", point, POINTS)
        fleet.add_group("/plant")
        fleet.grant("point", point, "/plant", duties=("seed", "gateway", "deploy"))
        named = ("--install", "agent", "--version", "1.0.0", "--platform", detect_platform())
        fleet.sign("add", "stable", agent, *named)
        fleet.publish()
        fleet.start("point", point, "points/behind-nat.toml")
        fleet.until_asked(lambda: fleet.states().get("point") == ("online", ""), "the point is linked")
        machine = BareMachine(tmp_path / "bare", bare.ipv4[0], bare.command)
        try:
            before = holding(PASSWORD)
            password = tmp_path / "fleet" / "password"
            password.touch(mode=0o600)
            password.write_text(PASSWORD)
            words = ("--group", "/plant", "--accept-keys", "first-use", "--password-file", str(password))
            made = fleet.ask("agent", "install", bare.ipv4[0], "--via", "point", *words)
            task = str(made["id"])
            part = machine.root / "opt/p2pdist-agent/versions"
            fleet.until(lambda: any(part.glob("*/*.part")), "the agent is being copied")
            assert holding(PASSWORD, tmp_path / "fleet") == before
            fleet.restart("point")
            run = ended(fleet, task)
            (item,) = run["items"]
            assert (item["state"], item["step"]) == ("done", "report"), run
            device = fleet.console.get("/devices", group="/plant")["devices"][0]
            assert device["node"] in item["detail"]
            assert (device["state"], device["via"]) == ("online", fleet.nodes["point"])
            assert holding(PASSWORD, tmp_path / "fleet") == before
            (found,) = fleet.inventory()
            assert (found["node"], found["state"]) == (device["node"], "online")
            assert found["addresses"][0]["address"] == bare.ipv4[0]
        finally:
            machine.end()


def ended(fleet: LabFleet, task: str) -> Any:
    """Wait until a run has ended; return it."""
    fleet.until_asked(lambda: fleet.task(task)["finished"], "the run has ended")
    return fleet.task(task)
