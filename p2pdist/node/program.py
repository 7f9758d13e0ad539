"""What the programs of a node share on their command lines: enrolment, errors, exit codes, readiness."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, UsageError
from p2pdist.files import read_bounded
from p2pdist.logs import get_logger
from p2pdist.node.enrol import enrol as enrol_node
from p2pdist.programs import complain
from p2pdist.trust.enrolment import EnrolmentBundle

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
    token_file: Path,
    data: Path = Path("/var/lib/p2pdist"),
    name: str = "",
    machine: str = "",
    local_host: str = "",
) -> int:
    """Make this machine a member of the fleet, and print its node id. Repeat it safely: the key is kept.

    Parameters
    ----------
    bundle
        The enrolment bundle that the operator handed out (`p2pdist enrolment`).
    token_file
        A file with an enrolment token, readable by its owner only (`p2pdist token add GROUP`).
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
        token = read_token(token_file)
        home = trio.run(
            partial(
                enrol_node,
                data,
                EnrolmentBundle.load(bundle),
                token,
                name=name or socket.gethostname(),
                machine=machine or None,
                local_host=local_host or None,
            )
        )
    except P2PDistError as error:
        return complain(error)
    print(f"{home.node} is a member of the fleet {home.fleet}, in the group {home.certificate.group}")
    return 0


def run_program(main: Callable[[], Awaitable[None]]) -> int:
    """Run a node until it ends, or SIGTERM or SIGINT asks it to; return the exit code.

    The one place where an error of ours becomes a line for people and an exit code.
    """
    try:
        trio.run(partial(_until_signalled, main))
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


def notify_ready(status: str) -> None:
    """Tell systemd that the service is ready (sd_notify(3)); nothing happens without systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.sendto(f"READY=1\nSTATUS={status}".encode(), address)
        except OSError as error:
            _log.warning("systemd.not_notified", reason=error.strerror)


async def _until_signalled(main: Callable[[], Awaitable[None]]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                await main()
                nursery.cancel_scope.cancel()

            nursery.start_soon(work)
            async for number in signals:
                _log.info("program.stopping", signal=signal.Signals(number).name)
                nursery.cancel_scope.cancel()


def _first(group: BaseExceptionGroup[P2PDistError]) -> P2PDistError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, P2PDistError)
    return error
