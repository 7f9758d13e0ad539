"""The program ``p2pdist`` before it speaks to a server."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # a process for each

PROGRAM = "import sys; from p2pdist.cli.main import main; sys.argv[0] = 'p2pdist'; main()"


def run(*arguments: str, code: str = PROGRAM) -> str:
    """Run it as a process of its own, and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("arguments", [(), ("--help",)], ids=["no argument", "--help"])
def test_without_a_command_every_command_is_shown_with_what_it_is_for(arguments: tuple[str, ...]) -> None:
    shown = " ".join(run(*arguments).split())
    assert "deploy Order a release onto a group" in shown
    assert "point Distribution points." in shown


def test_a_command_does_not_wait_for_what_only_others_need() -> None:
    loaded = run(
        "deploy", "--help", code=PROGRAM.replace("main()", "\ntry: main()\nfinally: print(*sys.modules)")
    )
    modules = set(loaded.split())
    assert "p2pdist.cli.rollout" in modules
    assert not modules & {"trio", "tuf", "p2pdist.cli.sessions", "p2pdist.cli.content"}
