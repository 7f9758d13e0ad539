"""What programs that run until they are told to stop share: errors, exit codes, supervision."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio

from p2pdist.errors import P2PDistError
from p2pdist.logs import get_logger
from p2pdist.node.supervisor import notify_stopping, show_life
from p2pdist.programs import complain

_log = get_logger()


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
