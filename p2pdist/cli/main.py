"""The program ``p2pdist``."""

from __future__ import annotations

import sys

from cyclopts import App, Parameter

import p2pdist
from p2pdist.cli import content, fleet, overview, rollout
from p2pdist.cli.output import errors
from p2pdist.cli.words import plain
from p2pdist.errors import P2PDistError
from p2pdist.programs import report_defect, shown_default

EPILOGUE = """\
Exit codes: 0 done · 1 a defect · 2 wrong usage, or not permitted · 3 the server broke the protocol ·
4 something is not trusted · 5 unavailable now, try again · 6 a deployment ended without success ·
130 interrupted"""

app = App(
    name="p2pdist",
    help="Operate a p2pdist fleet. Begin with:\n\n"
    "    p2pdist login https://HOST:7600 --token-file FILE --ca FILE",
    default_parameter=Parameter(show_default=shown_default),
    help_epilogue=EPILOGUE,
    version=p2pdist.__version__,
    result_action="return_value",
)
for command in (
    overview.login,
    overview.status,
    content.publish,
    rollout.deploy,
    rollout.explain,
    fleet.enrolment,
    fleet.revoke,
    overview.refusals,
    overview.audit,
):
    app.command(command)
for group in (
    rollout.deployment,
    content.release,
    content.channel,
    fleet.device,
    fleet.group,
    fleet.point,
    fleet.token,
    fleet.api_token,
):
    app.command(group)


def run(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code; errors become lines on standard error."""
    try:
        app(arguments, exit_on_error=True, print_error=True)
    except P2PDistError as error:
        printed = errors()
        printed.print(f"p2pdist: {plain(error.what)}", markup=False, soft_wrap=True)
        if error.hint:
            printed.print(f"  next: {plain(error.hint)}", markup=False, soft_wrap=True)
        return error.exit_code
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


def main() -> None:
    """Run the program."""
    sys.exit(run())
