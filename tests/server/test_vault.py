"""What the admin server keeps for runs: in memory, for an hour, for who it is for."""

from __future__ import annotations

import pytest

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.server.control.answers import Vault

ONE, TWO = NodeId("a" * 32), NodeId("b" * 32)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def box(vault: Vault, task: str, run: int, node: NodeId) -> bytes:
    return vault.find(task, run, node).box


def test_a_node_gets_its_own_box_for_the_run_that_it_is_for() -> None:
    vault = Vault(Clock())
    vault.keep("t", 1, {ONE: b"1", TWO: b"2"})
    assert [box(vault, "t", 1, ONE), box(vault, "t", 1, TWO)] == [b"1", b"2"]
    assert [box(vault, "t", 2, ONE), box(vault, "u", 1, ONE)] == [b"", b""]


def test_a_node_that_was_restarted_gets_it_again() -> None:
    vault = Vault(Clock())
    vault.keep("t", 1, {ONE: b"1"})
    assert [box(vault, "t", 1, ONE) for _ in range(2)] == [b"1", b"1"]


def test_it_is_gone_once_the_run_has_ended_there_and_others_still_have_theirs() -> None:
    vault = Vault(Clock())
    vault.keep("t", 1, {ONE: b"1", TWO: b"2"})
    vault.forget("t", node=ONE, run=1)
    assert [box(vault, "t", 1, ONE), box(vault, "t", 1, TWO)] == [b"", b"2"]


def test_the_late_end_of_an_older_run_takes_nothing_from_the_next() -> None:
    vault = Vault(Clock())
    vault.keep("t", 1, {ONE: b"1"})
    vault.keep("t", 2, {ONE: b"2"})
    vault.forget("t", node=ONE, run=1)
    assert box(vault, "t", 2, ONE) == b"2"


def test_it_is_gone_after_an_hour() -> None:
    clock = Clock()
    vault = Vault(clock)
    vault.keep("t", 1, {ONE: b"1"})
    clock.now = limits.SECRETS_LIFE_S
    assert box(vault, "t", 1, ONE) == b""


def test_a_run_that_is_begun_without_secrets_does_not_find_those_of_the_one_before() -> None:
    vault = Vault(Clock())
    vault.keep("t", 1, {ONE: b"1"})
    vault.keep("t", 2, {})
    assert box(vault, "t", 2, ONE) == b""


def test_more_than_it_may_keep_is_refused() -> None:
    vault = Vault(Clock())
    for number in range(limits.SECRETS_KEPT_MAX):
        vault.keep(f"t{number}", 1, {ONE: b"1"})
    with pytest.raises(Unavailable, match="have not asked"):
        vault.keep("t", 1, {ONE: b"1"})
