"""What the matrix of pairs asks for, and when it is content."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from laboratory.kinds import KINDS
from laboratory.theory import Traffic
from matrix.pairs import NEIGHBOUR, Found, Outcome, Pair, all_pairs
from matrix.table import as_json, as_markdown

CONES = Pair("port-restricted", "port-restricted", Traffic.SESSION)
SYMMETRIC = Pair("symmetric", "symmetric", Traffic.SESSION)
CONTENT = Pair("port-restricted", "full-cone", Traffic.CONTENT)
PUNCHED = Found(path="punched", seconds=0.5, relayed_s=0.4)
RELAYED = Found(path="relayed", seconds=0.5, relayed_s=0.5)
FETCHED = Found(path="punched", seconds=0.5, whole_s=4.0, alone_s=4.0)


def test_every_pair_is_there_once_and_neighbours_of_each_kind() -> None:
    pairs = all_pairs()
    assert len(pairs) == len(set(pairs)) == 2 * (105 + 14)
    for traffic in Traffic:
        of_it = {frozenset((pair.left, pair.right)) for pair in pairs if pair.traffic is traffic}
        assert {frozenset(pair) for pair in itertools.product(KINDS, KINDS)} <= of_it
        assert {frozenset((kind, NEIGHBOUR)) for kind in KINDS} <= of_it


def test_a_pair_is_found_whoever_of_it_is_named_first() -> None:
    assert all_pairs([Traffic.SESSION], [("udp-blocked", "open")]) == [
        Pair("open", "udp-blocked", Traffic.SESSION)
    ]


def test_a_pair_of_one_kind_are_two_places_and_neighbours_are_one() -> None:
    assert CONES.nodes == ("port-restricted-left", "port-restricted-right")
    assert Pair("hairpin", NEIGHBOUR, Traffic.SESSION).nodes == ("hairpin-left", "hairpin-beside")


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (CONES, "direct"),
        (SYMMETRIC, "relayed"),
        (Pair("hairpin", NEIGHBOUR, Traffic.CONTENT), "direct"),
        (Pair("no-hairpin", NEIGHBOUR, Traffic.CONTENT), "relayed"),
        (Pair("open", "udp-blocked", Traffic.CONTENT), "direct"),
        (Pair("open", "udp-blocked", Traffic.SESSION), "relayed"),
    ],
)
def test_the_theory_says_what_is_expected(pair: Pair, expected: str) -> None:
    assert pair.expected == expected


@pytest.mark.parametrize(
    ("pair", "found", "objection"),
    [
        (CONES, PUNCHED, None),
        (CONES, replace(PUNCHED, path="direct"), None),
        (SYMMETRIC, RELAYED, None),
        (CONTENT, FETCHED, None),
        (CONTENT, replace(FETCHED, whole_s=4.8), None),
        (CONES, RELAYED, "relayed, expected direct"),
        (CONES, replace(RELAYED, note="UDP is blocked"), "relayed, expected direct (UDP is blocked)"),
        (CONES, replace(PUNCHED, path="none"), "none, expected direct"),
        (SYMMETRIC, PUNCHED, "punched, expected relayed"),
        (CONES, replace(PUNCHED, seconds=2.1), "later than 2 s"),
        (CONES, replace(PUNCHED, relayed_s=1.2), "begun after 1.2 s"),
        (SYMMETRIC, replace(RELAYED, seconds=1.1), "later than 1 s"),
        (CONTENT, replace(FETCHED, whole_s=5.0), "5.0 s, 4.0 s through the gateway alone"),
        (CONTENT, replace(FETCHED, whole_s=None), "not whole"),
    ],
)
def test_what_is_not_as_it_must_be_is_said(pair: Pair, found: Found, objection: str | None) -> None:
    outcome = Outcome(pair, found)
    assert outcome.objections == ([objection] if objection else [])
    assert outcome.ok == (objection is None)


def test_a_path_that_comes_late_is_not_another_path() -> None:
    assert not Outcome(CONES, replace(PUNCHED, seconds=30.0)).is_off
    assert Outcome(CONES, RELAYED).is_off


def test_programs_get_a_list_of_objects() -> None:
    (told,) = json.loads(as_json([Outcome(CONTENT, FETCHED)]))
    assert told.items() >= {
        "left": "port-restricted",
        "right": "full-cone",
        "kind": "content",
        "expected": "direct",
        "path": "punched",
        "seconds": 0.5,
        "ok": True,
    }.items()  # fmt: skip


def test_the_documentation_gets_a_table_for_each_kind_of_traffic_and_what_went_wrong() -> None:
    written = as_markdown([Outcome(CONES, PUNCHED), Outcome(SYMMETRIC, PUNCHED)], 61.0)
    assert "in 1 minutes: 1 of 2 as they must be" in written
    assert "| **port-restricted** | punched 0.50 |  |" in written
    assert "- symmetric and symmetric, session: punched, expected relayed" in written
