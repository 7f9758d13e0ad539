"""The command tools/natlab: every kind does what it claims, and the check would notice if one did not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from laboratory.__main__ import main
from laboratory.kinds import KINDS, Filtering
from laboratory.measure import measure
from laboratory.network import Laboratory

_HONEST = KINDS["port-restricted"]
BOASTER = replace(
    _HONEST,
    name="boaster",
    ipv4=replace(_HONEST.ipv4, filtering=Filtering.ADDRESS_DEPENDENT, hairpin=True),
    rebinds=True,
)


def test_the_list_has_a_line_for_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(KINDS)


@pytest.mark.parametrize("command", ["check", "shell"])
def test_an_unknown_kind_is_wrong_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "symetric"]) == 2
    assert "symmetric" in capsys.readouterr().err


@pytest.mark.network
@pytest.mark.slow
def test_every_kind_does_what_it_claims_and_one_that_claims_too_much_is_found_out() -> None:
    with Laboratory() as laboratory:
        places = [laboratory.add(kind) for kind in (*KINDS.values(), BOASTER)]
        places[-1].rebind = lambda: None  # type: ignore[method-assign]
        found = {each.place.kind.name: each.differences() for each in measure(laboratory, places)}
    assert found == {
        **{name: [] for name in KINDS},
        "boaster": [
            "IPv4 filtering: claims address-dependent, does address-and-port-dependent",
            "IPv4 hairpin: claims yes, does no",
            "claims to rebind, and kept its mapping",
        ],
    }


@pytest.mark.network
@pytest.mark.slow
def test_no_two_tests_of_a_measurement_share_a_port_where_few_are_free() -> None:
    with Laboratory() as laboratory:
        place = laboratory.add(_HONEST)
        place.hosts[0].run("sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=40000 40015")
        (found,) = measure(laboratory, [place])
    assert found.differences() == []


@pytest.mark.network
@pytest.mark.slow
def test_the_check_prints_what_it_found_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "dmz", "only-443", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(each["kind"], each["ok"]) for each in found] == [("dmz", True), ("only-443", True)]
    assert found[1]["measured"]["ipv4"]["tcp_out"] == [443]
