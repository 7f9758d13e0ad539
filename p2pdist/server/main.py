"""The program ``p2pdist-server``."""

from __future__ import annotations

import gc
import sys

import cyclopts
from cyclopts import Parameter

import p2pdist
from p2pdist.errors import P2PDistError
from p2pdist.programs import EXIT_CODES, complain, end_quickly, load_commands, shown_default

app = cyclopts.App(
    name="p2pdist-server",
    help="The admin server of a p2pdist fleet.",
    default_parameter=Parameter(show_default=shown_default),
    help_epilogue=EXIT_CODES,
    version=p2pdist.__version__,
    version_format="plaintext",
    result_action="return_value",
)
app.command("p2pdist.server.founding:init", name="init")
app.command("p2pdist.server.running:run", name="run")
app.command("p2pdist.server.newtoken:token", name="token")


def main() -> None:
    """Run the program; errors become a line for people and an exit code."""
    end_quickly()
    gc.disable()  # what is loaded stays, and need not be looked through, now or while the server runs
    load_commands(app, sys.argv[1:])
    gc.freeze()
    gc.enable()
    try:
        code = app()
    except P2PDistError as error:
        code = complain(error)
    sys.exit(code)
