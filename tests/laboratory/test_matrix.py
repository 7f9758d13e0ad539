"""The quick subset of the matrix: representative pairs, with the real programs across real NATs.

Only the paths are looked at: how fast they come depends on what else this machine does.
``tools/natlab matrix`` measures it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from laboratory.__main__ import main
from laboratory.network import Laboratory
from matrix.command import outcomes_of
from matrix.pairs import all_pairs
from matrix.programs import Programs

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
        found = {each.pair: each for each in outcomes_of(pairs, laboratory, programs, print)}
    assert {str(pair): each.reached for pair, each in found.items()} == {
        str(pair): pair.expected for pair in pairs
    }


@pytest.mark.parametrize("text", ["open", "open,sym", "open,symmetric,dmz", "neighbour,open"])
def test_what_is_no_pair_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["matrix", "--only", text])
    assert "not a pair of kinds" in capsys.readouterr().err
