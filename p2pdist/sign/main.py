"""``p2pdist-sign``: the program."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, Parameter

import p2pdist
from p2pdist.errors import P2PDistError
from p2pdist.programs import complain, end_quickly, load_commands, report_defect, shown_default
from p2pdist.sign.groups import CONTENT, KEYS, PUBLICATION, SIGNING

app = App(
    name="p2pdist-sign",
    version=p2pdist.__version__,
    version_format="plaintext",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=(), show_default=shown_default),
    help="""Sign what the fleet installs. Works without a server and without a network.

    A first release, from nothing:

        p2pdist-sign init --fleet acme --threshold 2 \\
            --root alice --root bob --root carol
        p2pdist-sign channel add stable --key alice --key bob
        p2pdist-sign add stable ./app-3.1 --product app --version 3.1
        p2pdist-sign diff
        p2pdist-sign sign
        p2pdist-sign publish /srv/publication

    The repository is the directory where you are, or -C DIR, or P2PDIST_SIGN_REPOSITORY.

    Exit codes: 0 done, 1 a defect, 2 a mistake in the call, 3 malformed input, 4 something is not to be
    trusted, 5 try again later (disk full, repository in use), 130 interrupted.""",
)

app.command("p2pdist.sign.ceremony:init", name="init", group=KEYS)
app.command("p2pdist.sign.keyfiles:key_app", name="key", group=KEYS)
app.command("p2pdist.sign.ceremony:channel_app", name="channel", group=KEYS)
app.command("p2pdist.sign.ceremony:rotate", name="rotate", group=KEYS)
app.command("p2pdist.sign.adding:add", name="add", group=CONTENT, version_flags=())
app.command("p2pdist.sign.content:list_", name="list", group=CONTENT)
app.command("p2pdist.sign.content:grant", name="grant", group=CONTENT)
app.command("p2pdist.sign.content:revoke_app", name="revoke", group=CONTENT)
app.command("p2pdist.sign.content:rollback", name="rollback", group=CONTENT)
app.command("p2pdist.sign.looking:status", name="status", group=SIGNING)
app.command("p2pdist.sign.looking:diff", name="diff", group=SIGNING)
app.command("p2pdist.sign.signing:sign", name="sign", group=SIGNING)
app.command("p2pdist.sign.drafts:export", name="export", group=SIGNING)
app.command("p2pdist.sign.drafts:import_", name="import", group=SIGNING)
app.command("p2pdist.sign.drafts:renew", name="renew", group=SIGNING)
app.command("p2pdist.sign.drafts:discard", name="discard", group=SIGNING)
app.command("p2pdist.sign.publishing:publish", name="publish", group=PUBLICATION)
app.command("p2pdist.sign.publishing:verify", name="verify", group=PUBLICATION)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = options_last(sys.argv[1:] if arguments is None else arguments)
    try:
        load_commands(app, words)
        app(words, result_action="return_value")
    except P2PDistError as error:
        return complain(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing is half done\n")
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has seen enough
        return 0
    except Exception as error:  # noqa: BLE001 - the program's outer boundary
        return report_defect(app.name[0], error)
    return 0


def options_last(arguments: Sequence[str]) -> list[str]:
    """Let options of every command stand before it, too: ``p2pdist-sign -C DIR status``."""
    rest, leading = list(arguments), list[str]()
    while len(rest) > 1 and rest[0] in ("-C", "--repository", "--output"):
        leading += rest[:2]
        del rest[:2]
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *leading, *rest[end:]]


def main() -> None:
    """Run the program."""
    end_quickly()
    sys.exit(run())
