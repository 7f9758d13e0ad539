"""Certificates end, and so does what they opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_logs import LogBook
from harness import open_fleet

from p2pdist.node import reports
from p2pdist.swarm.session import Swarm

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset


async def test_with_every_regular_renewal_a_node_has_its_peers_show_their_certificates_again(
    tmp_path: Path, log_book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconnected: list[Swarm] = []
    reconnect = Swarm.reconnect

    def watch(swarm: Swarm, hosts: set[str] | None = None) -> None:
        if hosts is None:
            reconnected.append(swarm)
        reconnect(swarm, hosts)

    monkeypatch.setattr(Swarm, "reconnect", watch)
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        first = await fleet.release("1.0", sequence=1)
        await fleet.until_reported(first)
        assert not reconnected, "certificates that only lacked a swarm were replaced"
        swarms = {node.agent.member.swarm for node in fleet.nodes}
        with monkeypatch.context() as later:
            later.setattr(reports.Renewer, "_until_half_life", lambda renewer: 0.0)
            for node in fleet.nodes:
                node.agent.member.renew_certificate()
            await fleet.until(lambda: swarms <= set(reconnected), "everybody renews its certificate")
        second = await fleet.release("2.0", sequence=2)
        await fleet.until_reported(second)
