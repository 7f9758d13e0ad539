"""The outer boundary of every program: what went wrong becomes lines for people, and an exit code."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from p2pdist.errors import P2PDistError
from p2pdist.files import DiskFull

EXIT_CODES = """\
Exit codes: 0 done, or told to stop · 1 a defect · 2 a mistake in the call or in a file · 3 malformed input,
or the other side broke the protocol · 4 something is not trusted · 5 unavailable now, try again ·
130 interrupted"""
"""Of every program that has no others; for the end of its help."""

_HOUSE = Path(__file__).parent
_TRACEBACK_VARIABLE = "P2PDIST_TRACEBACK"


def shown_default(value: Any) -> str | None:
    """Say in the help what an option is without being given; nothing where that is plain."""
    if value is None or value is False or value in ("", (), []):
        return None
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


class Commands(Protocol):
    """The commands of a program by name, each loaded when it is taken; flags such as --help among them."""

    def __iter__(self) -> Iterator[str]: ...

    def __contains__(self, name: str, /) -> bool: ...

    def __getitem__(self, name: str, /) -> object: ...


def load_commands(commands: Commands, arguments: Sequence[str]) -> None:
    """Load what a call needs: its command, or for the list of them, which says what each is for, all.

    ``--version`` needs none.
    """
    first = next(iter(arguments), "--help")
    if first == "--version":
        return
    for name in [first] if first in commands and not first.startswith("-") else commands:
        commands[name]


def end_quickly() -> None:
    """Have this process end without a last look for unused cycles: its memory goes back as a whole."""
    atexit.register(gc.freeze)


def hint_of(error: P2PDistError) -> str:
    """Return what the user of a command can do about an error."""
    return "free some space, then repeat the command" if isinstance(error, DiskFull) else error.hint


def complain(error: P2PDistError) -> int:
    """Print an error for people on standard error, and return its exit code."""
    sys.stderr.write(f"error: {error.what}\n")
    hint = hint_of(error)
    if hint:
        sys.stderr.write(f"  try: {hint}\n")
    return error.exit_code


def report_defect(program: str, error: Exception) -> int:
    """Say in one line that *program* has a defect, and where; return the exit code 1.

    ``P2PDIST_TRACEBACK=1`` in the environment shows the whole way there, for whoever looks into it.
    """
    if os.environ.get(_TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    ours = [
        f"{Path(frame.filename).relative_to(_HOUSE.parent)}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(_HOUSE)
    ]
    words = " ".join(str(error).split())[:300]
    where = f" at {ours[-1]}" if ours else ""
    sys.stderr.write(
        f"{program}: a defect{where} ({type(error).__name__}: {words}); please report it with this line"
        f" ({_TRACEBACK_VARIABLE}=1 shows more)\n"
    )
    return 1
