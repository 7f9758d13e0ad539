"""A node's directory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import TrustError, UsageError
from p2pdist.ids import GroupPath
from p2pdist.node.home import Home, load_desired, save_desired
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.messages import DesiredState
from tests.node.nodes import Nodes

DESIRED = DesiredState(revision=3, group="/emea", swarms=[], deployments=[])


def test_a_directory_without_an_enrolment_says_how_to_enrol(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="enrol it first"):
        Home.open(tmp_path)


def test_a_renewed_certificate_survives_a_restart(nodes: Nodes, tmp_path: Path) -> None:
    home = nodes.home(tmp_path)
    home.key.save(tmp_path / "identity.key")
    home.replace_certificate(nodes.certificate(home.key, "/apac"))
    assert home.certificate.group == GroupPath("/apac")
    assert (tmp_path / "certificate.pem").read_bytes() == home.certificate_pem


def test_a_certificate_for_another_node_is_not_taken(nodes: Nodes, tmp_path: Path) -> None:
    home = nodes.home(tmp_path)
    before = home.certificate_pem
    with pytest.raises(UsageError, match="was offered to"):
        home.replace_certificate(nodes.certificate(IdentityKey.generate()))
    assert home.certificate_pem == before


def test_a_certificate_that_comes_a_second_time_after_a_newer_one_is_not_taken(
    nodes: Nodes, tmp_path: Path
) -> None:
    home = nodes.home(tmp_path)
    before = home.certificate_pem
    earlier = datetime.now(UTC) - timedelta(hours=1)
    old = nodes.authority.issue(
        home.key.public, group=GroupPath("/emea"), swarms=(), life_s=7200, now=earlier
    )
    with pytest.raises(UsageError, match="older than the present one"):
        home.replace_certificate(old)
    assert home.certificate_pem == before


def test_the_desired_state_survives_a_restart(nodes: Nodes, tmp_path: Path) -> None:
    home = nodes.home(tmp_path)
    assert load_desired(home) is None
    save_desired(home, DESIRED)
    assert load_desired(home) == DESIRED


@given(st.integers(0, 10_000), st.binary(max_size=8), st.booleans())
def test_a_desired_state_with_any_damage_counts_as_none_or_as_what_it_says(
    nodes: Nodes, tmp_path_factory: pytest.TempPathFactory, at: int, damage: bytes, cut: bool
) -> None:
    home = nodes.home(tmp_path_factory.getbasetemp() / "any-desired")
    home.state.mkdir(parents=True, exist_ok=True)
    save_desired(home, DESIRED)
    path = home.state / "desired"
    whole = path.read_bytes()
    at %= len(whole) + 1
    path.write_bytes(whole[:at] + damage + (b"" if cut else whole[at + len(damage) :]))
    found = load_desired(home)
    if found is not None:
        save_desired(home, found)
        assert load_desired(home) == found


def test_a_damaged_desired_state_counts_as_none(nodes: Nodes, tmp_path: Path) -> None:
    home = nodes.home(tmp_path)
    save_desired(home, DESIRED)
    path = home.state / "desired"
    path.write_bytes(path.read_bytes()[:-3])
    assert load_desired(home) is None


def test_a_certificate_that_somebody_on_the_way_has_made_up_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    home = nodes.home(tmp_path)
    with pytest.raises(TrustError, match="not of this fleet's authority"):
        home.replace_certificate(Nodes().certificate(home.key))
