"""``p2pdist-agent``: the program on a managed device."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

from p2pdist.install.patching import PATCH_WORD
from p2pdist.node.commandline import NodeProgram
from p2pdist.node.config import AgentConfig


def _load() -> Callable[[AgentConfig], Awaitable[None]]:
    from p2pdist.agent.agent import run_agent

    return run_agent


PROGRAM = NodeProgram(
    name="p2pdist-agent",
    purpose=(
        "The p2pdist agent: fetches, verifies and installs what the fleet's operator deploys to this device."
        "\n\nEnrol once, then run it as a service:\n\n"
        "    p2pdist-agent enrol --bundle fleet.enrolment --token-file token\n\n"
        "    p2pdist-agent run --config /etc/p2pdist/agent.toml"
    ),
    config=AgentConfig,
    load=_load,
)


def main() -> None:
    """Run the program; as one file it is also the process that applies deltas."""
    if sys.argv[1:] == [PATCH_WORD]:
        from p2pdist.install.patch import main as patch

        sys.exit(patch())
    PROGRAM.main()
