"""When a node asks for a new certificate, on a clock that jumps."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from p2pdist.ids import GroupPath
from p2pdist.node import enrol, reports
from p2pdist.node.home import Home
from p2pdist.node.mail import Mail
from p2pdist.node.reports import Renewer
from p2pdist.trust.certificates import make_request
from p2pdist.wire.messages import FromDevice, RenewalRequest
from tests.node.nodes import Nodes

HOUR_S = 3_600.0
DAY_S = 24 * HOUR_S


class Machine:
    """A node with a wall clock of its own, and an admin server that answers it."""

    def __init__(self, nodes: Nodes, directory: Path, *, life_s: int, ahead_s: float = 0.0) -> None:
        self._nodes = nodes
        self._life_s = life_s
        self.ahead_s = ahead_s
        self._began = datetime.now(UTC)
        self._began_at = trio.current_time()
        self.home: Home = nodes.home(directory)
        self.linked = True
        self.answers = True
        self.lacks = False
        self.cures = True
        self.asked: list[float] = []
        self.renewer = self.restarted()
        self._certify()

    def restarted(self) -> Renewer:
        self.renewer = Renewer(self.home, spread=0.5, send=self.send, lacking=lambda: self.lacks)
        return self.renewer

    def time(self) -> float:
        """The wall clock of this node."""
        return self._real().timestamp() + self.ahead_s

    async def send(self, message: FromDevice) -> bool:
        assert isinstance(message, RenewalRequest)
        if self.linked:
            self.asked.append(trio.current_time() - self._began_at)
            if self.answers:
                self.lacks = self.lacks and not self.cures
                self._certify()
                self.renewer.taken()
        return self.linked

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.renewer.run()

    def _real(self) -> datetime:
        return self._began + timedelta(seconds=trio.current_time() - self._began_at)

    def _certify(self) -> None:
        authority, key = self._nodes.authority, self.home.key
        self.home.replace_certificate(
            authority.issue(
                key.public, group=GroupPath("/"), swarms=[], life_s=self._life_s, now=self._real()
            )
        )


Make = Callable[..., Machine]


@pytest.fixture
def make(
    nodes: Nodes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Make:
    def make_machine(life_s: float = DAY_S, ahead_s: float = 0.0) -> Machine:
        machine = Machine(nodes, tmp_path, life_s=int(life_s), ahead_s=ahead_s)
        monkeypatch.setattr(reports, "time", SimpleNamespace(time=machine.time))
        return machine

    return make_machine


async def test_a_certificate_is_renewed_at_half_its_life(make: Make, autojump_clock: Any) -> None:
    machine = make()
    await machine.run(25 * HOUR_S)
    assert machine.asked == pytest.approx([12 * HOUR_S, 24 * HOUR_S], abs=1)


async def test_a_certificate_that_is_late_as_soon_as_it_comes_is_not_asked_for_without_a_pause(
    make: Make, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make(ahead_s=30 * HOUR_S)

    async def renewed(home: Home, mail: Mail, **_: Any) -> None:
        await machine.send(RenewalRequest(request=make_request(home.key)))

    monkeypatch.setattr(enrol, "renew_expired", renewed)
    monkeypatch.setattr(enrol, "time", SimpleNamespace(time=machine.time))
    with trio.move_on_after(HOUR_S):
        await enrol.renew_while_expired(machine.home, Mail(machine.home), spread=1.0)
    assert 50 <= len(machine.asked) <= 70


async def test_the_node_goes_on_once_its_clock_is_set_right(
    make: Make, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make(ahead_s=30 * HOUR_S)

    async def renewed(home: Home, mail: Mail, **_: Any) -> None:
        await machine.send(RenewalRequest(request=make_request(home.key)))
        machine.ahead_s = 0.0

    monkeypatch.setattr(enrol, "renew_expired", renewed)
    monkeypatch.setattr(enrol, "time", SimpleNamespace(time=machine.time))
    await enrol.renew_while_expired(machine.home, Mail(machine.home), spread=1.0)
    assert len(machine.asked) == 1


@pytest.mark.parametrize("hours", [12, 30, -12, -24 * 400])
async def test_a_wrong_wall_clock_does_not_make_a_node_renew_more_often(
    make: Make, autojump_clock: Any, hours: int
) -> None:
    machine = make(ahead_s=hours * HOUR_S)
    await machine.run(37 * HOUR_S)
    assert 3 <= len(machine.asked) <= 4
    assert min(b - a for a, b in zip(machine.asked, machine.asked[1:], strict=False)) > 11 * HOUR_S


async def test_a_life_of_seconds_is_renewed_once_a_minute(make: Make, autojump_clock: Any) -> None:
    machine = make(life_s=1)
    await machine.run(HOUR_S)
    assert len(machine.asked) <= 60


async def test_what_was_lived_before_a_restart_counts(make: Make, autojump_clock: Any) -> None:
    machine = make()
    await machine.run(8 * HOUR_S)
    machine.restarted()
    await machine.run(8 * HOUR_S)
    assert machine.asked == pytest.approx([12 * HOUR_S], abs=1)


async def test_one_new_swarm_takes_one_renewal_however_often_it_is_said(
    make: Make, autojump_clock: Any
) -> None:
    machine = make()
    machine.lacks = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, HOUR_S)
        for _ in range(20):
            machine.renewer.due.ring()
            await trio.sleep(0.1)
    assert len(machine.asked) == 1


async def test_a_certificate_that_still_lacks_something_is_asked_for_again_later(
    make: Make, autojump_clock: Any
) -> None:
    machine = make()
    machine.lacks, machine.cures = True, False
    await machine.run(HOUR_S)
    assert 2 <= len(machine.asked) <= math.ceil(HOUR_S / 20)


async def test_a_request_that_was_lost_is_sent_again(make: Make, autojump_clock: Any) -> None:
    machine = make()
    machine.lacks, machine.answers = True, False
    machine.renewer.due.ring()
    await machine.run(50)
    assert machine.asked == pytest.approx([0, 20, 40])


async def test_a_node_without_a_link_asks_once_it_has_one(make: Make, autojump_clock: Any) -> None:
    machine = make()
    machine.lacks, machine.linked = True, False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run, HOUR_S)
        await trio.sleep(100)
        assert not machine.asked
        machine.linked = True
        machine.renewer.due.ring()
        await wait_all_tasks_blocked()
        assert machine.asked == pytest.approx([100])
