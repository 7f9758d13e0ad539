"""The command line of a node's programs, most of which a node that runs does not need.

A node runs for months with the one command that its service unit names. ``cyclopts`` would stay resident
all that time, 2 MB, only for having read it. So ``run``, ``run --config FILE`` and ``--version`` are read
here, and everything else, help and mistakes included, by ``cyclopts``. What runs is loaded only where it
is to run: to enrol needs little of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

import p2pdist
from p2pdist.config import load_config
from p2pdist.errors import P2PDistError
from p2pdist.logs import configure_logging
from p2pdist.node.config import AgentConfig
from p2pdist.node.memory import use_one_arena
from p2pdist.node.program import run_program
from p2pdist.programs import EXIT_CODES, complain, end_quickly, shown_default

if TYPE_CHECKING:
    from cyclopts import App


C = TypeVar("C", bound=AgentConfig)


@dataclass(frozen=True, kw_only=True)
class NodeProgram(Generic[C]):
    """A program with two commands: to enrol, and to run.

    Attributes:
        name: The program's.
        purpose: What its help begins with.
        config: What its configuration file says.
        load: Import what the program runs, and return it: a function that serves until it is cancelled.
    """

    name: str
    purpose: str
    config: type[C]
    load: Callable[[], Callable[[C], Awaitable[None]]]

    def main(self) -> NoReturn:
        """Do what this process's command line says, and end with its exit code."""
        end_quickly()
        match sys.argv[1:]:
            case ["run"]:
                sys.exit(self.run())
            case ["run", "--config", file] if file and not file.startswith("-"):
                sys.exit(self.run(config=Path(file)))
            case ["--version"]:
                print(self.version())
                sys.exit(0)
            case words:
                sys.exit(self.command_line()(words))

    def run(self, *, config: Path | None = None) -> int:
        """Run until it is told to stop (SIGTERM).

        Every key of the configuration has a default, and P2PDIST_TABLE_KEY in the environment overrides it.

        Parameters
        ----------
        config
            The configuration file (TOML).
        """
        try:
            settings = load_config(config, self.config, os.environ)
        except P2PDistError as error:
            return complain(error)
        use_one_arena()
        configure_logging(self.name, settings.log.level, settings.log.json)
        serve = self.load()
        return run_program(lambda: serve(settings))

    def version(self) -> str:
        """Return the version, once all that runs has been loaded.

        Who asks a new file for it wants to know whether it works on this machine.
        """
        self.load()
        return p2pdist.__version__

    def command_line(self) -> App:
        """Make all of the command line."""
        from cyclopts import App, Parameter  # see above

        from p2pdist.node.enrolling import enrol

        app = App(
            name=self.name,
            version=self.version,
            version_format="plaintext",
            default_parameter=Parameter(show_default=shown_default),
            help=self.purpose,
            help_epilogue=EXIT_CODES,
        )
        app.command(enrol)
        app.command(self.run, name="run")
        return app
