"""Whom a node sends datagrams to because the neighbour above says so. No I/O.

A gateway has two devices show themselves to its observers and call each other (:mod:`p2pdist.core.meetings`).
One that lies must not make a device knock at its own services, at everybody or anywhere without end, nor
disturb how it reaches its other sources.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pdist import limits
from p2pdist.core.buckets import Bucket
from p2pdist.core.paths import is_loopback, may_ask
from p2pdist.errors import PeerError, UsageError
from p2pdist.wire.frames import Call, Candidate, Endpoint, Observe
from p2pdist.wire.stun import endpoint_of

_NEIGHBOUR = ("0.0.0.0", "::")


class Summons:
    """What of a neighbour's :class:`~p2pdist.wire.frames.Observe` and ``Call`` frames is followed.

    Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._shows = Bucket(per_s=limits.SHOWN_PER_S, burst=limits.SHOWN_BURST, now=0.0)
        self._calls = Bucket(per_s=limits.CALLED_PER_S, burst=limits.CALLED_BURST, now=0.0)

    def observers(self, frame: Observe, neighbour: str, now: float) -> list[Endpoint]:
        """Return whom to show this node to; *neighbour* is the address of who asks.

        Raises:
            PeerError: the frame is not to be followed.
        """
        if not self._shows.take(now):
            raise PeerError("it has this node show itself more often than anybody needs")
        there = [neighbour if each.host in _NEIGHBOUR else each.host for each in frame.observers]
        return [
            _checked(host, each.port, neighbour) for host, each in zip(there, frame.observers, strict=True)
        ]

    def endpoints(
        self, frame: Call, candidates: Sequence[Candidate], neighbour: str, now: float
    ) -> list[Endpoint]:
        """Return where to call.

        Args:
            frame: What the neighbour says.
            candidates: The sources of the artifact, as far as they are known here: in a large swarm a
                newcomer calls before everybody has been told of it.
            neighbour: The address of who says it.
            now: The time.

        Raises:
            PeerError: the frame is not to be followed.
        """
        known = next((candidate for candidate in candidates if candidate.node == frame.node), None)
        if known is not None and not (known.taken and known.path == "punched" and known.role == "device"):
            raise PeerError(
                f"it has {frame.node} called, which this node does not take as a source to be called"
            )
        if len(frame.endpoints) > limits.CALL_ENDPOINTS_MAX:
            raise PeerError(f"it has a node called at {len(frame.endpoints)} endpoints")
        endpoints = [_checked(each.host, each.port, neighbour) for each in frame.endpoints]
        if not self._calls.take(now):
            raise PeerError("it has this node call others more often than anybody needs")
        return endpoints


def _checked(host: str, port: int, neighbour: str) -> Endpoint:
    try:
        endpoint = endpoint_of(host, port)
    except UsageError as error:
        raise PeerError(f"it names an endpoint by no address: {error}") from error
    if not may_ask(endpoint, loopback=is_loopback(neighbour)):
        raise PeerError(f"it names {endpoint}, where no other node can be")
    return Endpoint(host=endpoint.host, port=port)
