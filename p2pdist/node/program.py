"""What the programs of a node share on their command lines: enrolment, errors, exit codes, supervision."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, UsageError
from p2pdist.files import read_bounded
from p2pdist.logs import get_logger
from p2pdist.node.enrol import ask_in_writing, take_answer
from p2pdist.node.enrol import enrol as enrol_node
from p2pdist.node.supervisor import notify_stopping, show_life
from p2pdist.programs import complain
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.trust.enrolmentfiles import EnrolmentAnswer

_log = get_logger()


def read_token(path: Path) -> str:
    """Read an enrolment token from a file, so that it never stands on a command line.

    Raises:
        UsageError: the file cannot be read, or others can read it too.
    """
    if path.stat().st_mode & 0o077 if path.exists() else False:
        raise UsageError(f"{path} can be read by others", hint=f"chmod 600 {path}, and make a new token")
    text = read_bounded(path, bytes_max=limits.KIB).decode("ascii", errors="replace").strip()
    if not text:
        raise UsageError(f"{path} is empty", hint="it holds what p2pdist token add printed")
    return text


def enrol(
    *,
    bundle: Path,
    token_file: Path | None = None,
    request: Path | None = None,
    answer: Path | None = None,
    data: Path = Path("/var/lib/p2pdist"),
    name: str = "",
    machine: str = "",
    local_host: str = "",
) -> int:
    """Make this machine a member of the fleet, and print its node id. Repeat it safely: the key is kept.

    Where it may dial nobody, a file goes to the operator (`p2pdist enrolment answer`) and another comes back.

    Parameters
    ----------
    bundle
        The enrolment bundle that the operator handed out (`p2pdist enrolment`).
    token_file
        A file with an enrolment token, readable by its owner only (`p2pdist token add GROUP`).
    request
        Dial nobody: write the request to this file.
    answer
        Dial nobody: take the answer to that request from this file.
    data
        The node's directory.
    name
        What people call the machine; its host name by default.
    machine
        What tells this machine from a clone; made from /etc/machine-id by default.
    local_host
        The address to dial from; the system's choice by default.
    """
    try:
        fleet = EnrolmentBundle.load(bundle)
        if answer is not None:
            home = take_answer(data, fleet, EnrolmentAnswer.load(answer), now=datetime.now(UTC))
        elif token_file is None:
            raise UsageError("an enrolment needs a token", hint="give it --token-file FILE")
        elif request is not None:
            asked = ask_in_writing(
                data, fleet, read_token(token_file), name=name or None, machine=machine or None
            )
            asked.save(request)
            print(f"{asked.node} asks to join the fleet {asked.fleet}: {request}")
            print(f"  next: bring it to the operator, p2pdist enrolment answer {request.name} --to answer,")
            print("        and the answer here: enrol again, with --answer instead of token and request")
            return 0
        else:
            home = trio.run(
                partial(
                    enrol_node,
                    data,
                    fleet,
                    read_token(token_file),
                    name=name or None,
                    machine=machine or None,
                    local_host=local_host or None,
                )
            )
    except P2PDistError as error:
        return complain(error)
    print(f"{home.node} is a member of the fleet {home.fleet}, in the group {home.certificate.group}")
    return 0


def run_program(main: Callable[[], Awaitable[None]]) -> int:
    """Run a program until it ends, or SIGTERM or SIGINT asks it to; return the exit code.

    A supervisor with a watchdog gets its signs of life meanwhile. This is the one place where an error of
    ours becomes a line for people and an exit code.
    """
    try:
        trio.run(_watched, main)
    except BaseExceptionGroup as group:
        ours, others = group.split(P2PDistError)
        if others is not None:
            raise
        assert ours is not None
        return complain(_first(ours))
    except P2PDistError as error:
        return complain(error)
    except KeyboardInterrupt:
        return 130
    return 0


async def _watched(main: Callable[[], Awaitable[None]]) -> None:
    """Run *main* and give signs of life until it has ended, its clean-up included."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show_life)
        await _until_signalled(main)
        nursery.cancel_scope.cancel()


async def _until_signalled(main: Callable[[], Awaitable[None]]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                await main()
                nursery.cancel_scope.cancel()

            nursery.start_soon(work)
            async for number in signals:
                _log.info("program.stopping", signal=signal.Signals(number).name)
                notify_stopping()
                nursery.cancel_scope.cancel()


def _first(group: BaseExceptionGroup[P2PDistError]) -> P2PDistError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, P2PDistError)
    return error
