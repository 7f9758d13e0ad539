"""The quick subset of the matrix: representative pairs, with the real programs across real NATs.

Only the paths are looked at: how fast they come depends on what else this machine does, and ``tools/natlab
matrix`` measures it. A pair that went wrong beside everything else is run once more, alone.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from laboratory.__main__ import main
from laboratory.network import Laboratory
from laboratory.theory import Traffic
from matrix import command
from matrix.command import outcomes_of, run_again
from matrix.pairs import Found, Outcome, Pair, all_pairs
from matrix.programs import Programs
from matrix.table import as_markdown

OFF = Outcome(Pair("open", "open", Traffic.SESSION), Found(path="relayed", seconds=0.4))
GOOD = Outcome(Pair("open", "symmetric", Traffic.SESSION), Found(path="punched", seconds=0.4))
PAIRS = [
    ("open", "open"),
    ("port-restricted", "port-restricted"),
    ("symmetric", "symmetric"),
    ("open", "udp-blocked"),
    ("ipv6-firewall", "ipv6-firewall"),
    ("symmetric", "dmz"),
]


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_representative_pairs_get_the_paths_that_theory_names(tmp_path: Path) -> None:
    pairs = all_pairs(only=PAIRS)
    with Laboratory() as laboratory, Programs(tmp_path) as programs:
        outcomes = list(outcomes_of(pairs, laboratory, programs, print))
    run_again(outcomes, tmp_path / "again")
    assert {str(each.pair): each.reached for each in outcomes} == {str(pair): pair.expected for pair in pairs}


def test_a_pair_on_the_wrong_path_is_run_once_more_and_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = Outcome(OFF.pair, Found(path="direct", seconds=0.4))
    ran: list[list[Pair]] = []

    def outcomes(pairs: list[Pair], *_: object) -> list[Outcome]:
        ran.append(pairs)
        return [better]

    monkeypatch.setattr(command, "outcomes_of", outcomes)
    monkeypatch.setattr(command, "Laboratory", nullcontext)
    outcomes_now = [GOOD, OFF]
    run_again(outcomes_now, tmp_path / "again")
    assert ran == [[OFF.pair]]
    assert outcomes_now == [GOOD, replace(better, before=OFF.found)]
    assert "open and open, session: run again, relayed at first" in as_markdown(outcomes_now, 1.0)


@pytest.mark.parametrize("off", [0, 6])
def test_where_none_or_many_pairs_are_on_the_wrong_path_nothing_is_run_again(
    tmp_path: Path, off: int
) -> None:
    pairs = [pair for pair in all_pairs() if pair.expected == "direct"]
    outcomes = [GOOD, *(replace(OFF, pair=pair) for pair in pairs[:off])]
    before = list(outcomes)
    run_again(outcomes, tmp_path / "again")
    assert outcomes == before


@pytest.mark.parametrize("text", ["open", "open,sym", "open,symmetric,dmz", "neighbour,open"])
def test_what_is_no_pair_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["matrix", "--only", text])
    assert "not a pair of kinds" in capsys.readouterr().err
