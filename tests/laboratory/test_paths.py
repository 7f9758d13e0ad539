"""Sessions through real NAT with the real programs: relayed at once, then on the best path there can be."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from laboratory.network import Host, Laboratory, Place
from sessions_fleet import LabFleet

pytestmark = [pytest.mark.network, pytest.mark.slow]

VISITING = Path(__file__).with_name("visiting.py")
PUNCHED_S = 2.0
"""From when both sides are known."""
KINDS = ("port-restricted", "symmetric", "udp-blocked")


@dataclass
class Setting:
    """A fleet, with a device and an operator in a place of each kind."""

    fleet: LabFleet
    operators: dict[str, Host]
    places: dict[str, Place]

    def path(self, operator: str, device: str, *options: str) -> Any:
        """Ask how an operator reaches a device."""
        return self.fleet.ask(self.operators[operator], "path", device, *options)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with Laboratory() as laboratory:
        gateway = laboratory.add("open").hosts[0]
        places = {kind: laboratory.add(kind) for kind in KINDS}
        operators = {kind: laboratory.add(kind).hosts[0] for kind in ("open", "port-restricted", "symmetric")}
        with LabFleet(tmp_path_factory.mktemp("fleet"), laboratory.server) as fleet:
            fleet.found()
            fleet.add({kind: place.hosts[0] for kind, place in places.items()}, gateway)
            yield Setting(fleet, operators, places)


class Visiting:
    """A session that is held open on an operator's machine."""

    def __init__(self, setting: Setting, operator: str, device: str) -> None:
        self._process = subprocess.Popen(
            setting.operators[operator].command(sys.executable, str(VISITING), device),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=setting.fleet.environment,
        )

    def until(self, path: str, within_s: float = 40.0) -> None:
        """Wait until the session is on a path of this kind."""
        assert self._process.stdout is not None
        end = time.monotonic() + within_s
        while line := self._process.stdout.readline():
            said = json.loads(line)
            assert time.monotonic() < end, f"{path}: not within {within_s:g} s"
            if said["path"] == path:
                return
        raise AssertionError(f"the session ended before it was {path}")

    def finish(self) -> Any:
        """End the session, and return what it says of its bytes."""
        out, _ = self._process.communicate("", timeout=30)
        return json.loads(out.splitlines()[-1])

    def end(self) -> None:
        """End the process, if it is still there."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def visiting(setting: Setting, operator: str, device: str) -> Iterator[Visiting]:
    visit = Visiting(setting, operator, device)
    try:
        yield visit
    finally:
        visit.end()


CUT_UDP = "table inet cut { chain out { type filter hook output priority 0; meta l4proto udp drop; }; }\n"


def test_a_session_between_two_port_restricted_nats_is_punched_within_two_seconds(setting: Setting) -> None:
    answer = setting.path("port-restricted", "port-restricted", "--no-nat")
    assert answer["path"] == "punched", answer
    assert answer["opened_ms"] < 1_000
    assert answer["seconds"] < PUNCHED_S
    assert [carrier["name"] for carrier in answer["relayed_through"]] == ["gateway"]
    used = [pair for pair in answer["attempts"][0]["pairs"] if pair["outcome"] == "used"]
    assert [pair["remote"].endswith("(srflx)") for pair in used] == [True]


def test_an_operator_in_the_open_punches_through_a_symmetric_nat(setting: Setting) -> None:
    answer = setting.path("open", "symmetric", "--no-nat")
    assert (answer["path"], answer["seconds"] < PUNCHED_S) == ("punched", True), answer


@pytest.fixture(scope="module")
def hopeless(setting: Setting) -> dict[str, Any]:
    """How two devices are reached to which there is no better path; it takes a while to be sure."""
    pairs = {"symmetric": "symmetric", "udp-blocked": "open"}
    with ThreadPoolExecutor() as pool:
        answers = pool.map(lambda pair: setting.path(pair[1], pair[0]), pairs.items())
        return dict(zip(pairs, answers, strict=True))


def test_between_two_symmetric_nats_a_session_stays_relayed_and_says_why(hopeless: dict[str, Any]) -> None:
    answer = hopeless["symmetric"]
    assert (answer["path"], answer["seconds"]) == ("relayed", None)
    assert "both NATs use another port for each peer" in answer["reason"]
    assert {pair["outcome"] for pair in answer["attempts"][0]["pairs"]} == {"no answer"}
    for nats in (answer["here"], answer["there"]):
        assert {tuple(nat["mapping"]) for nat in nats} == {("address-and-port-dependent",)}


def test_where_udp_is_blocked_a_session_stays_relayed_and_says_so(hopeless: dict[str, Any]) -> None:
    answer = hopeless["udp-blocked"]
    assert answer["path"] == "relayed"
    assert "UDP does not get through on the device's side" in answer["reason"]


def test_a_session_falls_back_when_udp_is_cut_and_punches_again_when_it_is_back(setting: Setting) -> None:
    operator = setting.operators["port-restricted"]
    with visiting(setting, "port-restricted", "port-restricted") as visit:
        visit.until("relayed")
        visit.until("punched")
        operator.namespace.rules(CUT_UDP)
        visit.until("relayed")
        operator.run("nft", "delete", "table", "inet", "cut")
        visit.until("punched")
        said = visit.finish()
    assert said["intact"], said
    assert said["sent"] > 0


def test_a_session_finds_the_new_port_of_a_nat_that_rebinds(setting: Setting) -> None:
    with visiting(setting, "open", "port-restricted") as visit:
        visit.until("punched")
        time.sleep(0.5)
        setting.places["port-restricted"].rebind()
        visit.until("relayed")
        visit.until("punched")
        said = visit.finish()
    assert said["intact"], said
