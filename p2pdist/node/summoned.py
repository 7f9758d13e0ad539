"""What a node does when its neighbour above has it show itself to observers and call others (0070)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from p2pdist.core.summons import Summons
from p2pdist.errors import PeerError
from p2pdist.ids import InfoHash, NodeId
from p2pdist.logs import get_logger
from p2pdist.swarm.session import Swarm
from p2pdist.wire.frames import Call, Candidate, Observe

_log = get_logger()


class Summoned:
    """Does what the neighbour above says, as far as that is within :class:`~p2pdist.core.summons.Summons`.

    Args:
        node: This node.
        swarm: Its swarm.
        sources: Returns the sources of an artifact as this node judges them; None where it takes no part.
    """

    def __init__(
        self, node: NodeId, swarm: Swarm, sources: Callable[[InfoHash], Sequence[Candidate] | None]
    ) -> None:
        self._node = node
        self._swarm = swarm
        self._sources = sources
        self._summons = Summons()
        self._refused = ("", "")

    def observe(self, frame: Observe, neighbour: str) -> None:
        """Show from where this node's swarm comes; *neighbour* is the address of who asks."""
        with self._refusing(neighbour):
            observers = self._summons.observers(frame, neighbour, trio.current_time())
            self._swarm.calls.show(InfoHash(frame.info_hash), observers, frame.token)

    def call(self, frame: Call, neighbour: str) -> None:
        """Call another node at the same moment as it calls this one, since *neighbour* asks."""
        sources = self._sources(InfoHash(frame.info_hash))
        if sources is None or frame.node == self._node:
            return
        with self._refusing(neighbour):
            endpoints = self._summons.endpoints(frame, sources, neighbour, trio.current_time())
            self._swarm.calls.call(
                InfoHash(frame.info_hash), NodeId(frame.node), endpoints, dials=frame.dials
            )

    @contextmanager
    def _refusing(self, neighbour: str) -> Iterator[None]:
        """Log why a neighbour is not followed, unless that is the same as the last time."""
        try:
            yield
        except PeerError as error:
            if self._refused != (refused := (neighbour, str(error))):
                self._refused = refused
                _log.warning("content.summons_refused", neighbour=neighbour, reason=str(error))
