"""The errors of p2pdist: one root, and four families that tell the caller what to do.

=====================  =======================================================================
family                 what the caller should do
=====================  =======================================================================
:class:`UsageError`    correct the call, the configuration or the command line
:class:`PeerError`     drop this peer; another one may behave
:class:`TrustError`    refuse; report it; never retry with the same bytes
:class:`Unavailable`   try again later, or elsewhere
=====================  =======================================================================

Every error says what happened, to what, and what to do next. Anything else that escapes a path on
which outside data arrives is a defect of ours.
"""

from __future__ import annotations


class P2PDistError(Exception):
    """Root of every error that p2pdist raises on purpose.

    Args:
        what: What happened and to what, in one clause, without a full stop.
        hint: What the reader can do about it; may be empty where nothing can be done.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class UsageError(P2PDistError):
    """The operator, a configuration file or our own caller asked for something that makes no sense."""

    exit_code = 2


class PeerError(P2PDistError):
    """The other side broke the protocol: malformed, oversized, out of order, too slow on purpose."""

    exit_code = 3


class TrustError(P2PDistError):
    """Something is not what its signature, hash, certificate or grant says; it is refused."""

    exit_code = 4


class Unavailable(P2PDistError):
    """A resource cannot be had now: a node is away, the disk is full, a deadline passed."""

    exit_code = 5


def sole_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the only error in a group, so that callers can catch it by its type; else the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
