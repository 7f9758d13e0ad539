"""What was said to each node and was not opened by it yet: kept by who said it, whatever happens on the way.

Gateways keep envelopes on their way, but an envelope may wait on one that its recipient has left, that has
burnt down, or that lies. So the admin server keeps each until the recipient says that it has opened it
(:class:`~p2pdist.wire.envelope.Opened`, in every heartbeat), and sends it again, as it is, when there is
another way to the recipient. What comes twice has the same counter, and is opened once.

A message that replaces the ones before (a desired state, a certificate) takes their place. In memory: after
a restart the admin server knows from its store what everybody should hear. Pure; times are monotonic
seconds, expiries Unix seconds.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.wire.envelope import Envelope, Opened

_SHARE = 8  # one node may use at most this part of what is free, as in a mailbox


@dataclass(slots=True, kw_only=True)
class _Kept:
    envelope: Envelope
    subject: str
    way: Hashable
    sent_at: float


class Outbox:
    """See the module.

    Args:
        size_bytes_max: How much is kept in all.
    """

    def __init__(self, size_bytes_max: int = limits.OUTBOX_BYTES_MAX) -> None:
        self._size_bytes_max = size_bytes_max
        self._size_bytes = 0
        self._kept: dict[NodeId, dict[int, _Kept]] = {}

    @property
    def size_bytes(self) -> int:
        """How much is kept."""
        return self._size_bytes

    def unopened(self, node: NodeId) -> tuple[int, ...]:
        """Return the counters of what *node* has not opened, in order."""
        return tuple(sorted(self._kept.get(node, ())))

    def keep(self, envelope: Envelope, *, subject: str, way: Hashable, now: float) -> None:
        """Keep an envelope that is to be sent.

        Args:
            envelope: The envelope.
            subject: It replaces what was said to its recipient on the same subject; empty: nothing.
            way: Over what it is sent; compared with later ways.
            now: The time.

        Raises:
            Unavailable: too much is kept already.
        """
        node, size = NodeId(envelope.recipient), len(envelope.box)
        for counter, kept in list(self._kept.get(node, {}).items()):
            if subject and kept.subject == subject:
                self._drop(node, counter)
        theirs = self._kept.get(node, {})
        theirs_bytes = sum(len(kept.envelope.box) for kept in theirs.values())
        free = self._size_bytes_max - self._size_bytes
        if len(theirs) >= limits.OUTBOX_NODE_ENVELOPES_MAX or theirs_bytes + size > min(
            limits.OUTBOX_NODE_BYTES_MAX, free // _SHARE
        ):
            raise Unavailable(
                f"{len(theirs)} envelopes of {theirs_bytes} bytes wait for {node} to open them",
                hint="what matters is said again at its next heartbeat",
            )
        self._kept.setdefault(node, {})[envelope.counter] = _Kept(
            envelope=envelope, subject=subject, way=way, sent_at=now
        )
        self._size_bytes += size

    def drop(self, envelope: Envelope) -> None:
        """Forget an envelope: it could not be sent."""
        self._drop(NodeId(envelope.recipient), envelope.counter)

    def opened(self, node: NodeId, opened: Opened) -> list[int]:
        """A node says what it has opened: forget that, and return the counters of what came too late.

        Those would be refused for their age; they are forgotten, too.
        """
        late = []
        for counter in self.unopened(node):
            if opened.has(counter):
                self._drop(node, counter)
            elif opened.is_past(counter):
                self._drop(node, counter)
                late.append(counter)
        return late

    def due(self, node: NodeId, *, way: Hashable, now: float, unix: int) -> list[Envelope]:
        """Return what is to be sent to a node now over *way*, in order; :meth:`sent_again` each that was.

        That is what was sent another way, or has been under way for too long.
        """
        for counter, kept in list(self._kept.get(node, {}).items()):
            if kept.envelope.expires < unix:
                self._drop(node, counter)
        return [
            kept.envelope
            for _, kept in sorted(self._kept.get(node, {}).items())
            if kept.way != way or kept.sent_at + limits.OUTBOX_AGAIN_S <= now
        ]

    def sent_again(self, envelope: Envelope, *, way: Hashable, now: float) -> None:
        """An envelope that was due is on its way again."""
        kept = self._kept[NodeId(envelope.recipient)][envelope.counter]
        kept.way, kept.sent_at = way, now

    def forget(self, node: NodeId) -> None:
        """Drop everything that was said to a node."""
        for counter in self.unopened(node):
            self._drop(node, counter)

    def _drop(self, node: NodeId, counter: int) -> None:
        theirs = self._kept[node]
        self._size_bytes -= len(theirs.pop(counter).envelope.box)
        if not theirs:
            del self._kept[node]
