"""Have a delta applied by a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import trio

from p2pdist import limits
from p2pdist.errors import TrustError, Unavailable
from p2pdist.files import storage_error
from p2pdist.install.patch import Outcome, Patch

PATCH_WORD = "patch"
"""How the agent as one file is told to be that process."""


async def apply_in_process(patch: Patch) -> None:
    """Make ``patch.result``, which replaces what is there, once it is what was signed.

    Raises:
        TrustError: the outcome is another one.
        Unavailable: the process could not be started, took too long or too much, or the disk is full.

    Cancellation ends the process. A process that a kill of ours leaves behind writes into a file that nobody
    else sees.
    """
    try:
        await trio.to_thread.run_sync(lambda: Path(patch.result).unlink(missing_ok=True))
    except OSError as error:
        raise storage_error(f"{patch.result} could not be removed", error) from error
    frozen = getattr(sys, "frozen", False)
    arguments = [PATCH_WORD] if frozen else ["-m", "p2pdist.install.patch"]
    ran = None
    try:
        with trio.move_on_after(limits.DELTA_WORK_S):
            ran = await trio.run_process(
                [sys.executable, *arguments],
                stdin=msgspec.json.encode(patch),
                capture_stdout=True,
                stderr=subprocess.DEVNULL,
                check=False,
            )
    except OSError as error:
        raise Unavailable(f"no process could be started for a delta ({error.strerror})") from error
    if ran is None:
        raise Unavailable(f"applying a delta took more than {limits.DELTA_WORK_S} s")
    if ran.returncode:
        raise Unavailable(f"the process that applied a delta ended with {ran.returncode}")
    try:
        failure = msgspec.json.decode(ran.stdout, type=Outcome).failure
    except msgspec.MsgspecError:
        failure = "the process that applied it said nothing"
    if failure:
        raise TrustError(failure)
