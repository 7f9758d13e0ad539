"""What every command takes, and how every command answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter
from rich.console import Console

from p2pdist.trust.publishing import Progress as Report
from p2pdist.trust.refusals import role_words
from p2pdist.trust.repository import Repository
from p2pdist.trust.signing import SigningState

WIDTH = 120
"""Columns of a table that does not go to a terminal, so that scripts see the same everywhere."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of every command."""

    repository: Annotated[Path, Parameter(alias="-C", env_var="P2PDIST_SIGN_REPOSITORY")] = Path()
    """The signing repository."""

    output: Literal["table", "json"] = "table"
    """How the result is printed: for people, or as one JSON object on standard output."""

    def open(self) -> Repository:
        """Open the repository."""
        return Repository.open(self.repository)

    def answer(self, result: Mapping[str, Any], render: Callable[[Console], None]) -> None:
        """Print a result, as JSON or by *render*."""
        if self.output == "json":
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n")
            return
        console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
        render(console)

    @contextmanager
    def progress(self) -> Iterator[Report]:
        """Show the progress of long work on standard error, if somebody watches."""
        if not sys.stderr.isatty() or self.output == "json":
            yield lambda *_: None
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            tasks: dict[str, Any] = {}

            def report(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=total)
                bar.update(tasks[what], completed=done)

            yield report


OPTIONS = Options()


def time_now() -> datetime:
    """Return the time, aware, in UTC."""
    return datetime.now(UTC)


def changed(options: Options, state: SigningState, lines: list[str], **result: Any) -> None:
    """Answer after a change: what was done, whose signatures it made void, and who must sign now."""
    wanted = signatures_wanted(state)
    dropped = [{"role": role, "key": key} for role, key in state.dropped]

    def render(console: Console) -> None:
        for line in lines:
            console.print(line, markup=False)
        for role, key in state.dropped:
            console.print(f"dropped: the signature of {key} on {role_words(role)}", markup=False)
        for role, text in wanted.items():
            console.print(f"  {role_words(role)} waits for {text}", markup=False)
        if wanted:
            console.print("next: p2pdist-sign diff, then p2pdist-sign sign", markup=False)
        elif state.drafts:
            console.print("everything is signed; next: p2pdist-sign publish DIR", markup=False)

    options.answer({**result, "dropped": dropped, "waiting": wanted}, render)


def signatures_wanted(state: SigningState) -> dict[str, str]:
    """Say for each unfinished draft whose signatures it waits for."""
    wanted = {}
    for role in state.roles():
        if role not in state.drafts:
            continue
        parts = [
            f"{demand.missing} of {', '.join(demand.unsigned)}"
            for demand in state.standing(role).demands
            if demand.missing
        ]
        if parts:
            wanted[role] = "; and ".join(dict.fromkeys(parts))  # old and new keys may be the same
    return wanted


def agreed(question: str) -> bool:
    """Ask a question on the terminal; only y or yes is a yes, and the end of the input is a no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def interactive() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and os.environ.get("TERM") != "dumb"
