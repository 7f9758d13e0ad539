"""The ports of devices' swarms."""

from __future__ import annotations

from p2pdist.swarm.tuning import device_port
from p2pdist.trust.keys import IdentityKey


def test_a_device_has_a_port_of_its_own_that_stays_the_same() -> None:
    nodes = [IdentityKey.generate().node for _ in range(100)]
    ports = [device_port(node) for node in nodes]
    assert ports == [device_port(node) for node in nodes]
    assert all(20_480 <= port < 28_672 for port in ports)
    assert len(set(ports)) > 90  # of 100 in 8,192 about one pair has the same
