"""``p2pdist-seed``: the program on a distribution point."""

from __future__ import annotations

import os
from pathlib import Path

from p2pdist.config import load_config
from p2pdist.errors import P2PDistError
from p2pdist.logs import configure_logging
from p2pdist.node.commandline import NodeProgram
from p2pdist.node.config import SeedConfig
from p2pdist.node.memory import use_one_arena
from p2pdist.node.program import run_program
from p2pdist.programs import complain
from p2pdist.seed.seed import run_seed


def run(*, config: Path | None = None) -> int:
    """Run the seed node until it is told to stop (SIGTERM).

    Every key of the configuration has a default, and P2PDIST_TABLE_KEY in the environment overrides it.

    Parameters
    ----------
    config
        The configuration file (TOML).
    """
    try:
        settings = load_config(config, SeedConfig, os.environ)
    except P2PDistError as error:
        return complain(error)
    use_one_arena()
    configure_logging("p2pdist-seed", settings.log.level, settings.log.json)
    return run_program(lambda: run_seed(settings))


PROGRAM = NodeProgram(
    name="p2pdist-seed",
    purpose=(
        "The p2pdist seed node: a distribution point for a group of devices, within its signed seed grant."
        "\n\nEnrol it, have a grant signed for the node id that is printed, then run it as a service:\n\n"
        "    p2pdist-seed enrol --bundle fleet.enrolment --token-file token\n\n"
        "    p2pdist-seed run --config /etc/p2pdist/seed.toml"
    ),
    run=run,
)


def main() -> None:
    """Run the program."""
    PROGRAM.main()
