"""One program with a deadline: its exit code and the tail of its output.

A program runs without a shell, in a process group of its own, with no input, a small environment
and the usual umask. When it exceeds its time, or the caller is cancelled, the whole group ends.

If *we* are killed, it may outlive us. Each program therefore holds the writing end of a named pipe,
the *witness*: the kernel closes it when the last process of that run is gone, and the next run of ours
can wait for exactly that, without guessing from process ids.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.files import storage_error

_GRACE_S = 3.0  # between asking a group to end and ending it
_TIDY_S = 3 * _GRACE_S  # for a group that takes both graces, because the kernel does not let it go
_DRAIN_S = 1.0  # for output that is still in the pipe, or held open by a daemon that was started
_UMASK = 0o022  # ours is that of a service with secrets; what a program installs is for all users
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessResult:
    """How a program ended."""

    exit_code: int | None
    """None if it never ran; negative: the signal that ended it."""
    output: bytes
    """The end of its standard output and error together."""
    problem: str
    """Why it did not end by itself, as the rest of a sentence about it; empty if it did."""


def environment_of(extra: Mapping[str, str]) -> dict[str, str]:
    """What a program sees: enough to find others and to speak plainly, and none of our configuration."""
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
    path = dict.fromkeys(
        [*os.environ.get("PATH", "").split(":"), *_PATH.split(":")]
    )  # dpkg wants all of these
    return {
        **kept,
        "PATH": ":".join(part for part in path if part),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        **extra,
    }


async def run_process(
    arguments: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path,
    environment: Mapping[str, str],
    witness: Path,
) -> ProcessResult:
    """Run one program to its end.

    Args:
        arguments: The program and its arguments; a program without ``/`` is looked up in ``PATH``.
        timeout_s: After this the process group is ended.
        cwd: Its working directory; a relative program is found from there.
        environment: All of its environment.
        witness: The named pipe that its processes hold open.

    Raises:
        Unavailable: the witness cannot be made.

    Cancellation ends the process group before it returns.
    """
    held = open_witness(witness)
    try:
        process = await trio.lowlevel.open_process(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
            umask=_UMASK,
            pass_fds=(held,),
        )
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        return ProcessResult(exit_code=None, output=b"", problem=f"could not be started ({text})")
    finally:
        os.close(held)
    return await _watch(process, timeout_s)


async def _watch(process: trio.Process, timeout_s: float) -> ProcessResult:
    tail = bytearray()
    timed_out = False
    try:
        async with trio.open_nursery() as nursery:
            read = trio.Event()
            nursery.start_soon(_read_tail, process, tail, read)
            with trio.move_on_after(timeout_s) as scope:
                await process.wait()
            if scope.cancelled_caught:
                timed_out = True
                await _end_group(process)
            with trio.move_on_after(_DRAIN_S):
                await read.wait()
            nursery.cancel_scope.cancel()
    finally:
        with trio.move_on_after(_TIDY_S, shield=True):
            if process.returncode is None:
                await _end_group(process)
            if process.stdout is not None:
                await process.stdout.aclose()
    code = process.returncode
    problem = ""
    if timed_out:
        problem = f"did not finish within {timeout_s:g} s and was ended"
    elif code is not None and code < 0:
        problem = f"was ended by signal {-code}"
    return ProcessResult(exit_code=code, output=bytes(tail), problem=problem)


async def _read_tail(process: trio.Process, tail: bytearray, read: trio.Event) -> None:
    assert process.stdout is not None
    async for data in process.stdout:
        tail += data
        del tail[: -limits.OUTPUT_BYTES_MAX]
    read.set()


async def _end_group(process: trio.Process) -> None:
    """End *process* and everything in its group: politely, then not. Takes at most twice the grace."""
    _signal_group(process.pid, signal.SIGTERM)
    with trio.move_on_after(_GRACE_S):
        await process.wait()
    _signal_group(process.pid, signal.SIGKILL)
    with trio.move_on_after(_GRACE_S):
        await process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return  # gone already, or only a zombie is left


def open_witness(path: Path) -> int:
    """Open the witness for a new program; the descriptor is ours to close once the program has it."""
    try:
        if not path.is_fifo():
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise storage_error(f"{path} could not be made", error) from error


async def wait_witness(path: Path, *, timeout_s: float) -> None:
    """Wait until no program of an earlier run is alive.

    Raises:
        Unavailable: one still is after *timeout_s*; it is not touched.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        with trio.move_on_after(timeout_s):
            while not _hung_up(descriptor):
                await trio.lowlevel.wait_readable(descriptor)
            return
    finally:
        os.close(descriptor)
    raise Unavailable(
        "a program that an earlier run started has not ended", hint="end it, or wait until it has"
    )


def _hung_up(descriptor: int) -> bool:
    try:
        while os.read(descriptor, 4_096):
            pass  # a program wrote to a descriptor that it should not know of
    except BlockingIOError:
        return False
    return True
