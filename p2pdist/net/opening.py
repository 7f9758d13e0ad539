"""The opening of a link: whether both sides want it, and if not, why.

The dialler opens the control stream; the acceptor answers it with 200, or with another status and the
reason. A stranger's link has no control stream: it is open when HTTP/2 is.
"""

from __future__ import annotations

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError
from p2pdist.net.answering import Answerer
from p2pdist.net.asking import error_of
from p2pdist.net.control import ControlStream
from p2pdist.net.http2 import Session
from p2pdist.wire import codec
from p2pdist.wire.requests import Problem


class Opening:
    """See the module.

    Args:
        session: The link's session.
        control: Its control stream.
        answerer: What answers on this side, refusals too.
        member: Whether both sides have shown a certificate.

    Attributes:
        accepted: Whether the link is open, or was before it ended.
    """

    __slots__ = ("_answerer", "_control", "_decided", "_member", "_reason", "_session", "accepted")

    def __init__(self, session: Session, control: ControlStream, answerer: Answerer, *, member: bool) -> None:
        self._session = session
        self._control = control
        self._answerer = answerer
        self._member = member
        self._reason = b""
        self._decided: trio.Event | None = trio.Event()
        self.accepted = False

    async def wait_decided(self) -> None:
        """Wait until the link is open, or never will be."""
        if self._decided is not None:
            await self._decided.wait()

    def decide(self, accepted: bool) -> None:
        """The link is open, or has ended. What was decided first counts."""
        decided, self._decided = self._decided, None
        if decided is not None:
            self.accepted = accepted
            decided.set()

    def ready(self) -> None:
        """HTTP/2 is open."""
        if not self._member:
            self.decide(True)

    def asked(self, stream: int) -> None:
        """The dialler has opened *stream* as the control stream. Raises PeerError if it has one already."""
        if self._control.stream:
            raise PeerError("opened a second control stream")
        if self._answerer.refusal is not None:
            self._answerer.refuse(stream, self._answerer.refusal)
        elif not self._member:
            self._answerer.refuse(stream, TrustError("a link needs a certificate of this fleet"))
        else:
            self._control.open(stream)
            self._session.answer(stream, 200)
            self.decide(True)

    def answered(self, status: int) -> None:
        """The acceptor has answered the control stream."""
        if status == 200:
            self.decide(True)

    def explained(self, data: bytes) -> None:
        """More of the reason why the acceptor refuses. Raises PeerError if it is too long."""
        self._reason += data
        if len(self._reason) > limits.REQUEST_BYTES_MAX:
            raise PeerError("refuses with more than is allowed")

    def refusal(self) -> P2PDistError | None:
        """Return why the acceptor refuses, if it has said so. Raises PeerError if it makes no sense."""
        if not self._reason:
            return None
        try:
            problem: Problem = codec.decode(self._reason, Problem)
        except PeerError as error:
            raise PeerError(f"refuses the link without a valid reason: {error.what}") from error
        return error_of(problem)
