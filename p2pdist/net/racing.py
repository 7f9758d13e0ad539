"""Dialling several addresses of one neighbour: the first that answers is taken (RFC 8305, section 5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable

T = TypeVar("T")
Address = tuple[str, int]


async def first_to_answer(
    addresses: Sequence[Address], dial: Callable[[str, int], Awaitable[T]], discard: Callable[[T], None]
) -> T:
    """Dial addresses in their order, and return what came of the first that answers.

    Each has :data:`~p2pdist.limits.DIAL_STAGGER_S` until the next is dialled beside it, and less when it
    fails before. Attempts that are still under way at the end are cancelled.

    Args:
        addresses: Hosts and ports, at least one; the best first.
        dial: Dials one of them. What it raises other than a :class:`~p2pdist.errors.P2PDistError` ends all.
        discard: Closes what came of an attempt that answered at the same moment as the first, or when the
            caller was cancelled at that moment.

    Raises:
        TrustError, PeerError: that is what all of them ended with.
        Unavailable: none answered as it should. The cause is the error of one that did answer, if any.
    """
    won: list[T] = []
    errors: list[P2PDistError] = []

    async def attempt(address: Address, failed: trio.Event) -> None:
        try:
            answered = await dial(*address)
        except P2PDistError as error:
            errors.append(error)
            failed.set()
            return
        if won:
            discard(answered)
            return
        won.append(answered)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed)
                with trio.move_on_after(limits.DIAL_STAGGER_S):
                    await failed.wait()
    except BaseException:
        for answered in won:
            discard(answered)
        raise
    if won:
        return won[0]
    raise _together(errors)


def _together(errors: Sequence[P2PDistError]) -> P2PDistError:
    """Make one error of those of all addresses; a single one stays as it is."""
    if len(errors) == 1:
        return errors[0]
    what = "; ".join(dict.fromkeys(error.what for error in errors))
    hint = errors[0].hint
    answered = [error for error in errors if not isinstance(error, Unavailable)]
    together: P2PDistError = Unavailable(what, hint=hint)
    for kind in (TrustError, PeerError):
        if all(isinstance(error, kind) for error in errors):
            together = kind(what, hint=hint)
    together.__cause__ = (answered or errors)[0]
    return together
