"""Running tools/demo, and looking for what it leaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "tools"


def command(*arguments: str) -> Sequence[str]:
    return [sys.executable, "-m", "demo_fleet", *arguments]


def environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TOOLS), "TMPDIR": str(directory)}


def processes_in(directory: Path) -> list[str]:
    """The command lines of the processes that name *directory*."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found
