"""``p2pdist-agent``: the program on a managed device."""

from __future__ import annotations

import os
from pathlib import Path

from p2pdist.agent.agent import run_agent
from p2pdist.config import load_config
from p2pdist.errors import P2PDistError
from p2pdist.logs import configure_logging
from p2pdist.node.commandline import NodeProgram
from p2pdist.node.config import AgentConfig
from p2pdist.node.memory import use_one_arena
from p2pdist.node.program import run_program
from p2pdist.programs import complain


def run(*, config: Path | None = None) -> int:
    """Run the agent until it is told to stop (SIGTERM).

    Every key of the configuration has a default, and P2PDIST_TABLE_KEY in the environment overrides it.

    Parameters
    ----------
    config
        The configuration file (TOML).
    """
    try:
        settings = load_config(config, AgentConfig, os.environ)
    except P2PDistError as error:
        return complain(error)
    use_one_arena()
    configure_logging("p2pdist-agent", settings.log.level, settings.log.json)
    return run_program(lambda: run_agent(settings))


PROGRAM = NodeProgram(
    name="p2pdist-agent",
    purpose=(
        "The p2pdist agent: fetches, verifies and installs what the fleet's operator deploys to this device."
        "\n\nEnrol once, then run it as a service:\n\n"
        "    p2pdist-agent enrol --bundle fleet.enrolment --token-file token\n\n"
        "    p2pdist-agent run --config /etc/p2pdist/agent.toml"
    ),
    run=run,
)


def main() -> None:
    """Run the program."""
    PROGRAM.main()
