"""The agent as one file, made by tools/build-agent; what it has made before it gives again."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from importlib.metadata import version
from pathlib import Path

import trio
from rich.console import Console
from rich.text import Text

from demo_fleet.payload import Package
from demo_fleet.plan import DemoError
from p2pdist.install.platform import detect_platform

_BUILD = Path(__file__).parents[1] / "build-agent"
_BUILD_S = 900.0


async def build_agent(directory: Path, console: Console) -> Package:
    """Build the file, or take the one that is built; what the builder says is shown.

    Raises:
        DemoError: it cannot be built.
    """
    path = directory / "p2pdist-agent"
    said: list[str] = []

    async def show_lines(stream: trio.abc.ReceiveStream) -> None:
        rest = b""
        async for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                said.append(line.decode("utf-8", "replace"))
                console.print(Text(f"  {said[-1]}", style="dim"), soft_wrap=True)

    with trio.move_on_after(_BUILD_S):
        async with trio.open_nursery() as nursery:
            run = partial(
                trio.run_process,
                check=False,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                deliver_cancel=_end,
            )
            process: trio.Process = await nursery.start(run, [str(_BUILD), str(path)])
            assert process.stderr is not None
            with console.status("building; about a minute the first time"):
                await show_lines(process.stderr)
                await process.wait()
    if not path.exists():
        raise DemoError("tools/build-agent could not make the agent:\n" + "\n".join(said[-5:]))
    return Package(
        product="p2pdist-agent", version=version("p2pdist"), sequence=1, kind="agent", source=path,
        platform=detect_platform(),
    )  # fmt: skip


async def _end(process: trio.Process) -> None:
    """End the builder with what it has started."""
    os.killpg(process.pid, signal.SIGTERM)
