"""Sessions through real NAT with the real programs: relayed at once, then on the best path there can be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from held_session import hold_session
from lab_fleet import POINTS, LabFleet
from laboratory.network import Host, Laboratory, Place

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(300)]

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
        return self.fleet.ask("path", device, *options, at=self.operators[operator])


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with Laboratory() as laboratory:
        gateway = laboratory.add("open").hosts[0]
        places = {kind: laboratory.add(kind) for kind in KINDS}
        operators = {kind: laboratory.add(kind).hosts[0] for kind in ("open", "port-restricted", "symmetric")}
        with LabFleet(tmp_path_factory.mktemp("fleet"), laboratory.server) as fleet:
            fleet.found()
            fleet.enrol("gateway", gateway, POINTS)
            fleet.grant("gateway", gateway, "/sites")
            fleet.publish()
            fleet.start("gateway", gateway, "points/dedicated.toml")
            for kind, place in places.items():
                fleet.enrol(kind, place.hosts[0], "/sites")
                fleet.start(kind, place.hosts[0], "agent.toml")
            fleet.until_carried(*places, by="gateway")
            yield Setting(fleet, operators, places)


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
    with hold_session(setting.fleet, operator, "port-restricted") as session:
        session.until("relayed")
        session.until("punched")
        operator.namespace.rules(CUT_UDP)
        session.until("relayed")
        operator.run("nft", "delete", "table", "inet", "cut")
        session.until("punched")
        said = session.finish()
    assert said["intact"], said
    assert said["sent"] > 0


def test_a_session_outlives_a_nat_that_rebinds(setting: Setting) -> None:
    """The device's TCP is lost; the punched path lives where the open side controls, or another one comes."""
    with hold_session(setting.fleet, setting.operators["open"], "port-restricted") as session:
        session.until("punched")
        time.sleep(0.5)
        setting.places["port-restricted"].rebind()
        time.sleep(1)
        said = session.finish()
    assert said["intact"], said
