"""The program ``p2pdist``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
from cyclopts import App, CycloptsError, Parameter

import p2pdist
from p2pdist.cli.output import errors
from p2pdist.cli.words import plain
from p2pdist.errors import P2PDistError, UsageError
from p2pdist.programs import end_quickly, hint_of, load_commands, report_defect, shown_default

EPILOGUE = """\
Exit codes: 0 done · 1 a defect · 2 wrong usage, or not permitted · 3 the server broke the protocol ·
4 something is not trusted · 5 unavailable now, try again · 6 a deployment or a task ended without success ·
130 interrupted"""

app = App(
    name="p2pdist",
    help="Operate a p2pdist fleet. Begin with:\n\n"
    "    p2pdist login https://HOST:7600 --token-file FILE --ca FILE",
    default_parameter=Parameter(show_default=shown_default),
    help_epilogue=EPILOGUE,
    version=p2pdist.__version__,
    version_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
COMMANDS = {
    "overview": ("login", "status", "refusals", "audit"),
    "content": ("publish", "release", "channel"),
    "rollout": ("deploy", "deployment", "explain"),
    "fleet": ("revoke", "device", "group", "point", "token", "api_token"),
    "enrolment": ("enrolment",),
    "sessions": ("ping", "logs", "diagnose"),
    "tunnel": ("tunnel",),
    "path": ("path",),
    "waking": ("wake",),
    "inventory": ("inventory",),
    "discovery": ("discover",),
    "mirrors": ("fetch",),
    "installing": ("agent",),
    "tasks": ("task",),
    "following": ("follow",),
    "proposals": ("proposal",),
}
"""The commands of each module in this package. A module is imported when one of its commands is given, so
that none waits for what only another one needs."""

for module, names in COMMANDS.items():
    for name in names:
        app.command(f"p2pdist.cli.{module}:{name}", name=name.replace("_", "-"))


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code; errors become lines, or JSON, on standard error."""
    words = sys.argv[1:] if arguments is None else arguments
    as_json = _asks_for_json(words)
    try:
        load_commands(app, words)
        app(arguments, exit_on_error=False, print_error=not as_json)
    except P2PDistError as error:
        _complain(error, as_json=as_json)
        return error.exit_code
    except CycloptsError as error:
        if as_json:
            _complain(UsageError(str(error), hint="p2pdist --help"), as_json=True)
        return UsageError.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has seen enough
        return 0
    except Exception as error:  # noqa: BLE001 - the program's outer boundary
        return report_defect("p2pdist", error)
    except SystemExit as ended:  # cyclopts has printed what is wrong with the arguments
        return 2 if ended.code else 0
    return 0


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether the output is to be JSON, also where the arguments are too wrong to be parsed."""
    pairs = zip(arguments, (*arguments[1:], ""), strict=False)
    joined = ("--output=json", "-o=json", "-ojson")
    return any(word in joined or (word in ("--output", "-o") and then == "json") for word, then in pairs)


def _complain(error: P2PDistError, *, as_json: bool) -> None:
    if as_json:
        document = msgspec.json.encode({"error": error.what, "hint": hint_of(error)})
        sys.stderr.write(document.decode() + "\n")
        return
    printed = errors()
    printed.print(f"p2pdist: {plain(error.what)}", markup=False, soft_wrap=True)
    if hint := hint_of(error):
        printed.print(f"  next: {plain(hint)}", markup=False, soft_wrap=True)


def main() -> None:
    """Run the program."""
    end_quickly()
    sys.exit(run())
