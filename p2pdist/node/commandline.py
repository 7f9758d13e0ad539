"""The command line of a node's programs, most of which a node that runs does not need.

A node runs for months with the one command that its service unit names. ``cyclopts`` would stay resident
all that time, 2 MB, only for having read it. So ``run`` and ``run --config FILE`` are read here, and
everything else, help and mistakes included, by ``cyclopts``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

import p2pdist
from p2pdist.node.program import enrol
from p2pdist.programs import EXIT_CODES, shown_default

if TYPE_CHECKING:
    from cyclopts import App


class Run(Protocol):
    """The command that runs a node until it is told to stop, and returns the exit code."""

    def __call__(self, *, config: Path | None = None) -> int: ...


@dataclass(frozen=True, kw_only=True)
class NodeProgram:
    """A program with two commands: to enrol, and to run. ``purpose`` is what its help begins with."""

    name: str
    purpose: str
    run: Run

    def main(self) -> NoReturn:
        """Do what this process's command line says, and end with its exit code."""
        match sys.argv[1:]:
            case ["run"]:
                sys.exit(self.run())
            case ["run", "--config", file] if file and not file.startswith("-"):
                sys.exit(self.run(config=Path(file)))
            case words:
                sys.exit(self.command_line()(words))

    def command_line(self) -> App:
        """Make all of the command line."""
        from cyclopts import App, Parameter  # see above

        app = App(
            name=self.name,
            version=p2pdist.__version__,
            default_parameter=Parameter(show_default=shown_default),
            help=self.purpose,
            help_epilogue=EXIT_CODES,
        )
        app.command(enrol)
        app.command(self.run, name="run")
        return app
