"""``p2pdist-seed``: the program on a distribution point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from p2pdist.node.commandline import NodeProgram
from p2pdist.node.config import SeedConfig


def _load() -> Callable[[SeedConfig], Awaitable[None]]:
    from p2pdist.seed.seed import run_seed

    return run_seed


PROGRAM = NodeProgram(
    name="p2pdist-seed",
    purpose=(
        "The p2pdist seed node: a distribution point for a group of devices, within its signed seed grant."
        "\n\nEnrol it, have a grant signed for the node id that is printed, then run it as a service:\n\n"
        "    p2pdist-seed enrol --bundle fleet.enrolment --token-file token\n\n"
        "    p2pdist-seed run --config /etc/p2pdist/seed.toml"
    ),
    config=SeedConfig,
    load=_load,
)


def main() -> None:
    """Run the program."""
    PROGRAM.main()
