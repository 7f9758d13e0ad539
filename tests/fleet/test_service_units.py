"""The service units: a process that hangs is ended so soon that it costs whoever it carries ten seconds."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from fleet_supervision import UNITS, service_of

from p2pdist import limits
from p2pdist.node.supervisor import _SIGNS

NAMES = sorted(path.stem for path in UNITS.glob("*.service"))
CARRIERS = ("p2pdist-seed", "p2pdist-server")  # whoever is linked to them loses them
STEP_S = 2.2  # the longest that was seen and is not announced, at a gateway on a busy machine (0103)


def test_every_program_that_runs_as_a_service_has_a_unit() -> None:
    assert NAMES == ["p2pdist-agent", "p2pdist-seed", "p2pdist-server"]


@pytest.mark.parametrize("name", NAMES)
def test_a_process_that_shows_no_life_is_killed_and_started_again(name: str) -> None:
    service = service_of(name)
    assert service["Type"] == "notify" and service["NotifyAccess"] == "main"
    assert float(service["WatchdogSec"]) > 0
    assert service["WatchdogSignal"] == "SIGKILL", "another waits until it runs again, or writes secrets down"
    assert service["Restart"] in ("on-failure", "always"), "both follow a watchdog"


@pytest.mark.parametrize("name", CARRIERS)
def test_one_that_hangs_is_ended_soon_enough_for_whoever_it_carries(name: str) -> None:
    hangs_s = float(service_of(name)["WatchdogSec"])
    assert hangs_s + limits.LINK_REDIAL_S <= limits.LINK_LOST_S


@pytest.mark.parametrize("name", CARRIERS)
def test_one_that_only_has_much_to_do_is_not_ended(name: str) -> None:
    hangs_s = float(service_of(name)["WatchdogSec"])
    assert hangs_s - hangs_s / _SIGNS >= 2 * STEP_S


def test_without_a_watchdog_the_links_notice_in_time_where_they_are_few_or_the_machine_is_gone() -> None:
    hangs_s = limits.LINK_PACES_S[0] + 2 * limits.LINK_ANSWER_S
    assert max(hangs_s, limits.LINK_UNREACHABLE_S) + limits.LINK_REDIAL_S <= limits.LINK_LOST_S


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_nothing_wrong_with_a_unit(name: str, tmp_path: Path) -> None:
    unit = tmp_path / f"{name}.service"
    text = (UNITS / unit.name).read_text()
    unit.write_text(text.replace("/opt/p2pdist/bin/", "/bin/true "))
    checked = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in checked.stderr.splitlines() if str(unit) in line] == []
