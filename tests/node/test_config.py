"""What the configuration of a node says in words of its own."""

from __future__ import annotations

import pytest

from p2pdist.config import load_config
from p2pdist.errors import UsageError
from p2pdist.node.config import AgentConfig


def ports(text: str) -> list[int]:
    return list(load_config(None, AgentConfig, {"P2PDIST_SESSIONS_UDP_PORTS": text}).sessions.ports())


def test_the_ports_of_sessions_are_the_systems_choice_or_those_from_the_first_to_the_last() -> None:
    assert ports("") == [0]
    assert ports("7610-7610") == [7_610]
    assert ports("7610-7612") == [7_610, 7_611, 7_612]
    assert ports("64536-65535")[-1] == 65_535


@pytest.mark.parametrize(
    "text", ["7610", "0-10", "20-10", "65000-65536", "1-1001", "a-b", "7610-7619 ", "-1-5"]
)
def test_ports_that_there_are_not_or_too_many_are_a_mistake_that_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="udp_ports"):
        ports(text)
