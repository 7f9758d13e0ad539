"""Saying which step comes, and how much time has gone by."""

from __future__ import annotations

import trio
from rich.console import Console

_began = trio.lowlevel.RunVar[float]("began")


def begin() -> float:
    """Begin to count the seconds; return now, on trio's clock."""
    began = trio.current_time()
    _began.set(began)
    return began


def step(console: Console, title: str, text: str) -> None:
    """Say what comes now, and how many seconds have gone by."""
    seconds = trio.current_time() - _began.get()
    console.print(f"\n[bold]{title}[/] [dim]·[/] {text} [dim]· {seconds:.0f} s[/]", highlight=False)
