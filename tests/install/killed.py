"""A program that installs, and is really killed: run by test_kill.py.

It reads one request a line, forks a child for each, and answers one line when the child is gone. The
child counts the operations on files and processes that Python reports to audit hooks, and ends itself
with SIGKILL right before the one that the request names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from killing import Countdown, in_child

from p2pdist.errors import P2PDistError
from p2pdist.install.installers import InstallLayout, install
from p2pdist.trust.catalog import Release

COUNTED = (
    "open",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "subprocess.Popen",
)


class Request(msgspec.Struct, kw_only=True):
    """What to install where, and when to die (0: not at all)."""

    release: Release
    artifact: str
    root: str
    state: str
    attempt: str
    kill_at: int = 0
    own: str = ""


class Own:
    """The program that installs, of the version *file*: it is heard of at once, and leaves at once."""

    def __init__(self, file: Path, leave: Callable[[], None]) -> None:
        self.file = file
        self.leave = leave

    async def confirm(self) -> None:
        """The admin server answers."""


def child(request: Request, answer: int) -> None:
    """Install, and write the outcome to the descriptor *answer*."""

    def end(failure: str) -> None:
        os.write(answer, json.dumps({"failure": failure, "operations": countdown.count}).encode())

    def leave() -> None:
        end("it left")
        os._exit(0)

    countdown = Countdown(request.kill_at)
    countdown.watch(COUNTED)
    layout = InstallLayout(root=Path(request.root), state=Path(request.state))

    async def work() -> str:
        try:
            result = await install(
                request.release,
                Path(request.artifact),
                layout=layout,
                attempt=request.attempt,
                own=Own(Path(request.own), leave) if request.own else None,
            )
        except P2PDistError as error:
            return f"{type(error).__name__}: {error}"
        return result.failure

    end(trio.run(work))


def main() -> None:
    """Serve requests until the input ends."""
    for line in sys.stdin:
        request = msgspec.json.decode(line, type=Request)
        said, _ = in_child(partial(child, request))
        print(said.decode() or json.dumps({"killed": True}), flush=True)


if __name__ == "__main__":
    main()
