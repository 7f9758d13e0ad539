"""The command ``tools/natlab matrix``: what it takes, what it says, and the order of everything."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from laboratory.kinds import KINDS
from laboratory.network import Laboratory
from laboratory.theory import Traffic
from rich.console import Console

from matrix.content import Shelf, content
from matrix.fleet import Fleet
from matrix.grounds import Grounds
from matrix.pairs import NEIGHBOUR, ZONE, Found, Outcome, Pair, all_pairs
from matrix.programs import MatrixError, Programs
from matrix.sessions import session
from matrix.table import as_json, as_markdown, as_table

_AT_ONCE = {Traffic.SESSION: 2, Traffic.CONTENT: 4}
"""Pairs at the same time: a session takes a core for a second, content waits for its line."""

_AGAIN_MAX = 5
"""Pairs on another path than the theory's that are run again alone; that of more would be no accident."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Tell the parser of the command what it takes."""
    parser.add_argument(
        "--only",
        action="append",
        type=_named,
        default=[],
        metavar="LEFT,RIGHT",
        help=f"only this pair of kinds, or KIND,{NEIGHBOUR}; can be given several times (default: all)",
    )
    parser.add_argument("--kind", choices=[str(traffic) for traffic in Traffic], help="only this traffic")
    parser.add_argument(
        "--paths",
        action="store_true",
        help="let the paths alone decide over the exit code, not the times, and run the few pairs that are "
        "on a wrong one again, alone: for a machine that is not quiet",
    )
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the tables into FILE, as Markdown")
    parser.add_argument(
        "--keep", action="store_true", help="leave the programs' logs and data, and say where"
    )


def run(options: argparse.Namespace) -> int:
    """Run the pairs that the options ask for, and print how they went; return the exit code.

    Raises:
        LaboratoryError: no laboratory can be built here.
    """
    traffics = [Traffic(options.kind)] if options.kind else list(Traffic)
    pairs = all_pairs(traffics, options.only)
    directory = Path(tempfile.mkdtemp(prefix="p2pdist-matrix-"))
    begun = time.monotonic()
    outcomes: list[Outcome] = []
    try:
        with Laboratory() as laboratory, _programs(directory / "all") as programs:
            for outcome in outcomes_of(pairs, laboratory, programs, _say):
                outcomes.append(outcome)
                _say(f"{len(outcomes)} of {len(pairs)}: {_line(outcome)}")
        if options.paths:
            run_again(outcomes, directory / "again")
    except MatrixError as error:
        _say(str(error))
        return 1
    finally:
        if options.keep:
            _say(f"logs and data of every program: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
        if outcomes:  # as far as it came
            outcomes.sort(key=lambda outcome: pairs.index(outcome.pair))
            _show(outcomes, options, time.monotonic() - begun)
    wrong = [each for each in outcomes if (each.is_off if options.paths else not each.ok)]
    return int(bool(wrong))


def run_again(outcomes: list[Outcome], directory: Path) -> None:
    """Run the pairs that are off in a fleet of their own, if they are few, and let that count.

    Args:
        outcomes: How all went; those are replaced that are run again.
        directory: Where the programs of that fleet live; it is made.

    Raises:
        MatrixError: the fleet does not come to life.
    """
    off = {outcome.pair: outcome for outcome in outcomes if outcome.is_off}
    if not 0 < len(off) <= _AGAIN_MAX:
        return
    with Laboratory() as laboratory, _programs(directory) as programs:
        for again in outcomes_of(list(off), laboratory, programs, _say):
            _say(f"again: {_line(again)}")
            before = off[again.pair]
            outcomes[outcomes.index(before)] = replace(again, before=before.found)


def outcomes_of(
    pairs: Sequence[Pair], laboratory: Laboratory, programs: Programs, say: Callable[[str], None]
) -> Iterator[Outcome]:
    """Build the fleet that pairs need, run them, and yield how each went, as they end.

    Raises:
        MatrixError: the fleet does not come to life.
    """
    names = {name for pair in pairs for name in pair.nodes}
    say(f"building {len(names)} places")
    fleet = Fleet(programs, Grounds(laboratory, names))
    shelf = Shelf(fleet, [pair for pair in pairs if pair.traffic is Traffic.CONTENT])
    say("founding the fleet")
    fleet.found()
    say("signing and publishing")
    fleet.publish(shelf.make(programs.directory / "artifacts"))
    say(f"enrolling and starting {len(fleet.nodes)} nodes")
    fleet.start_points()
    fleet.start_devices()
    for zone in {pair.nodes[0] for pair in pairs if pair.left == ZONE and pair.traffic is Traffic.SESSION}:
        fleet.open_forward(zone)
    if shelf.pairs:
        say("putting the artifacts to their holders")
        shelf.fill()
    for traffic in Traffic:
        yield from _side_by_side(
            [pair for pair in pairs if pair.traffic is traffic],
            lambda pair: (
                session(fleet, pair) if pair.traffic is Traffic.SESSION else content(fleet, shelf, pair)
            ),
            _AT_ONCE[traffic],
        )


def _programs(directory: Path) -> Programs:
    directory.mkdir()
    return Programs(directory)


def _side_by_side(pairs: Sequence[Pair], work: Callable[[Pair], Found], at_once: int) -> Iterator[Outcome]:
    """Work on pairs, some at the same time, but never on two with a node in common."""
    waiting, busy = list(pairs), set[str]()
    freed = threading.Condition()

    def next_free() -> Pair:
        with freed:
            while True:
                for pair in waiting:
                    if not busy & set(pair.nodes):
                        waiting.remove(pair)
                        busy.update(pair.nodes)
                        return pair
                freed.wait()

    def one() -> Outcome:
        pair = next_free()
        try:
            return Outcome(pair, work(pair))
        except MatrixError as error:
            return Outcome(pair, Found(path="none", seconds=None, note=str(error)))
        finally:
            with freed:
                busy.difference_update(pair.nodes)
                freed.notify_all()

    with ThreadPoolExecutor(at_once) as threads:
        for done in as_completed([threads.submit(one) for _ in pairs]):
            yield done.result()


def _named(text: str) -> tuple[str, str]:
    left, comma, right = text.partition(",")
    if not comma or left not in KINDS or right not in (*KINDS, NEIGHBOUR):
        raise argparse.ArgumentTypeError(
            f"{text} is not a pair of kinds, such as open,symmetric; there are {', '.join(KINDS)}"
        )
    return left, right


def _line(outcome: Outcome) -> str:
    seconds = "" if outcome.found.seconds is None else f" after {outcome.found.seconds:.2f} s"
    verdict = "" if outcome.ok else f"  NOT OK: {'; '.join(outcome.objections)}"
    return f"{outcome.pair}: {outcome.found.path}{seconds}{verdict}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(outcomes: Sequence[Outcome], options: argparse.Namespace, took_s: float) -> None:
    if options.output is not None:
        options.output.write_text(as_markdown(outcomes, took_s))
    if options.json:
        print(as_json(outcomes))
        return
    Console(width=None if sys.stdout.isatty() else 160).print(as_table(outcomes))
    good = sum(outcome.ok for outcome in outcomes)
    print(f"{good} of {len(outcomes)} as they must be, in {took_s:.0f} s")
