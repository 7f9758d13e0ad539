"""``p2pdist-seed``: the program on a distribution point."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

import p2pdist
from p2pdist.config import load_config
from p2pdist.errors import P2PDistError
from p2pdist.logs import configure_logging
from p2pdist.node.config import SeedConfig
from p2pdist.node.memory import use_one_arena
from p2pdist.node.program import enrol, run_program
from p2pdist.programs import EXIT_CODES, complain, shown_default
from p2pdist.seed.seed import run_seed

app = App(
    name="p2pdist-seed",
    version=p2pdist.__version__,
    default_parameter=Parameter(show_default=shown_default),
    help_epilogue=EXIT_CODES,
    help=(
        "The p2pdist seed node: a distribution point for a group of devices, within its signed seed grant."
        "\n\nEnrol it, have a grant signed for the node id that is printed, then run it as a service:\n\n"
        "    p2pdist-seed enrol --bundle fleet.enrolment --token-file token\n\n"
        "    p2pdist-seed run --config /etc/p2pdist/seed.toml"
    ),
)


app.command(enrol)


@app.command
def run(*, config: Annotated[Path | None, Parameter(help="The configuration file (TOML).")] = None) -> int:
    """Run the seed node until it is told to stop (SIGTERM).

    Every key of the configuration has a default, and P2PDIST_TABLE_KEY in the environment overrides it.
    """
    try:
        settings = load_config(config, SeedConfig, os.environ)
    except P2PDistError as error:
        return complain(error)
    use_one_arena()
    configure_logging("p2pdist-seed", settings.log.level, settings.log.json)
    return run_program(lambda: run_seed(settings))


def main() -> None:
    """Run the program."""
    sys.exit(app())
