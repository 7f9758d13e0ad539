"""The command tools/natlab."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec
from matrix.command import add_options
from matrix.command import run as matrix
from rich.console import Console
from rich.table import Table

from laboratory.kinds import KINDS, SHORT_TIMEOUT_S, Behaviour, Kind
from laboratory.measure import Measured, in_words, measure
from laboratory.network import Laboratory, LaboratoryError, kind_named
from laboratory.places import HOSTS_MAX

_EPILOG = """\
examples:
  tools/natlab list                        the kinds of places, one a line
  tools/natlab check                       builds one of each and measures it, in about 15 seconds
  tools/natlab check symmetric dmz --json  only these, for a program
  tools/natlab shell port-restricted       a shell on a host behind such a NAT
  tools/natlab shell hairpin --hosts 3     the same, with two more hosts in the place
  tools/natlab matrix                      every pair with the real programs, in half an hour
  tools/natlab matrix --only open,symmetric --only symmetric,symmetric
                                           these pairs, in a minute

Each place is a network of namespaces with real NAT and firewalls, connected to a small internet with a
server in it. Nothing touches this machine's own network, and nothing is left when the command ends, however
it ends. It takes root, or a kernel that lets users make user namespaces, and the packages iproute2,
nftables and conntrack. docs/laboratory.md says more.

exit codes: 0 as claimed or predicted, 1 not so, 2 wrong usage, 3 no laboratory possible here"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        kinds = [kind_named(name) for name in options.kinds]
    except LaboratoryError as error:
        print(f"tools/natlab: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return int(options.run(options, kinds or list(KINDS.values())))
    except LaboratoryError as error:
        print(f"tools/natlab: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/natlab",
        description="A laboratory of networks: NATs of every kind, firewalls, a DMZ, on this machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser(
        "list", help="print the kinds of places", description="Print the kinds of places."
    )
    listing.set_defaults(run=_list, kinds=[])
    checking = commands.add_parser(
        "check",
        help="build places, measure them, compare with what they claim",
        description="Build one place of each kind, find out with plain sockets what its network does, in "
        "the words of RFC 4787, and compare with what the kind claims. Exit code 1 on a difference.",
    )
    checking.add_argument("kinds", nargs="*", metavar="KIND", help="the kinds to check (default: all)")
    checking.add_argument("--json", action="store_true", help="print what was found as JSON")
    checking.set_defaults(run=_check)
    shell = commands.add_parser(
        "shell",
        help="open a shell on a host in such a place",
        description="Build a place and open a shell on its first host. The server answers no one by itself: "
        "start what you like there with the command that is shown. Everything ends with the shell.",
    )
    shell.add_argument("kinds", nargs=1, metavar="KIND", help="the kind of place")
    number = range(1, HOSTS_MAX + 1)
    shell.add_argument(
        "--hosts",
        type=int,
        choices=number,
        default=2,
        metavar="N",
        help="hosts in the place, 1 to 8 (default: 2)",
    )
    shell.set_defaults(run=_shell)
    pairs = commands.add_parser(
        "matrix",
        help="run every pair of places with the real programs, and compare with the theory",
        description="Build a fleet with devices in two places of each kind, run a session and an artifact "
        "between every two of them and between neighbours, and compare the path that each gets with what is "
        "possible there. Takes about half an hour for all. Exit code 1 if a pair is not as it must be.",
    )
    add_options(pairs)
    pairs.set_defaults(run=lambda options, _: matrix(options), kinds=[])
    return parser


def _list(_options: argparse.Namespace, kinds: Sequence[Kind]) -> int:
    width = max(len(kind.name) for kind in kinds)
    for kind in kinds:
        print(f"{kind.name:{width}}  {kind.summary}")
    return 0


def _check(options: argparse.Namespace, kinds: Sequence[Kind]) -> int:
    with Laboratory() as laboratory:
        places = [laboratory.add(kind) for kind in kinds]
        found = measure(laboratory, places)
    if options.json:
        json.dump([_as_json(each) for each in found], sys.stdout, indent=2)
        print()
    else:
        _print(found)
    return int(any(each.differences() for each in found))


def _as_json(measured: Measured) -> dict[str, Any]:
    kind = measured.place.kind
    return {
        "kind": kind.name,
        "ok": not measured.differences(),
        "differences": measured.differences(),
        "claimed": {"ipv4": _behaviour_json(kind.ipv4), "ipv6": _behaviour_json(kind.ipv6)},
        "measured": {"ipv4": _behaviour_json(measured.ipv4), "ipv6": _behaviour_json(measured.ipv6)},
        "rebinds": measured.rebinds,
    }


def _behaviour_json(behaviour: Behaviour | None) -> Any:
    return None if behaviour is None else msgspec.to_builtins(asdict(behaviour), order="deterministic")


def _print(found: Sequence[Measured]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "place",
        "UDP",
        "mapping",
        "filtering",
        "hairpin",
        "lives",
        "UDP in",
        "TCP out",
        "TCP in",
        "",
    ):
        table.add_column(heading, no_wrap=heading in ("place", "UDP", "TCP out"))
    for measured in found:
        rows = [(measured.place.kind.name, measured.ipv4)]
        if measured.ipv6 is not None:
            rows.append(("  IPv6", measured.ipv6))
        for number, (name, behaviour) in enumerate(rows):
            verdict = "" if number else "differs" if measured.differences() else "as claimed"
            table.add_row(name, *_cells(behaviour), verdict)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for measured in found:
        for difference in measured.differences():
            print(f"{measured.place.kind.name}: {difference}")


def _cells(behaviour: Behaviour) -> list[str]:
    mapping = in_words(behaviour.mapping)
    if behaviour.translated is False:
        mapping += " (no NAT)"
    lives = {None: "-", True: f"< {SHORT_TIMEOUT_S + 1.5:g} s", False: f"> {SHORT_TIMEOUT_S + 1.5:g} s"}
    return [
        in_words(behaviour.udp_out),
        mapping,
        in_words(behaviour.filtering),
        in_words(behaviour.hairpin),
        lives[behaviour.expires_early],
        in_words(behaviour.udp_in),
        in_words(behaviour.tcp_out),
        in_words(behaviour.tcp_in),
    ]


def _shell(options: argparse.Namespace, kinds: Sequence[Kind]) -> int:
    with Laboratory() as laboratory:
        place = laboratory.add(kinds[0], hosts=options.hosts)
        print(f"{place.kind.name}: {place.kind.summary}")
        for host in (laboratory.server, *place.hosts):
            print(f"  {host.name:20} {' '.join((*host.ipv4, *host.ipv6))}")
        for host in (laboratory.server, *place.hosts[1:]):
            print(f"a shell on {host.name}, from another terminal:  {' '.join(host.command('bash'))}")
        print(f"this is {place.hosts[0].name}; exit ends everything")
        shell = place.hosts[0].command(os.environ.get("SHELL", "sh"))
        prompt = {**os.environ, "PS1": f"{place.hosts[0].name}$ "}
        return subprocess.run(shell, check=False, env=prompt).returncode


if __name__ == "__main__":
    sys.exit(main())
