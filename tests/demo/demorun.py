"""Running tools/demo, and looking for what it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
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


def check_that_a_signal_ends_everything(directory: Path, number: signal.Signals, *arguments: str) -> None:
    """Send a signal to a demonstration whose server runs: it ends in order, and leaves nothing.

    It is given a small file to distribute, and so makes no tree of libraries: it does not come that far.
    """
    with subprocess.Popen(
        command(*arguments, "--package", __file__),
        env=environment(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        shown = []
        for line in demo.stdout:
            shown.append(line)
            if line.startswith("Distribution points"):
                break
        assert any("p2pdist-server" in line for line in processes_in(directory)), "".join(shown)
        demo.send_signal(number)
        shown.append(demo.stdout.read())
    assert demo.returncode == 130, "".join(shown)
    assert processes_in(directory) == []
    assert list(directory.iterdir()) == []
