"""Answers to what nodes ask in envelopes: certificates, secrets of runs, whether a device has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.server.control.admit import Admission
from p2pdist.server.control.desk import Desk
from p2pdist.server.control.devices import Device, Directory
from p2pdist.wire.messages import Certificate, RenewalRequest
from p2pdist.wire.questions import (
    NodeAwaited,
    NodeCame,
    SecretsRequest,
    TaskAnswer,
    TaskQuestion,
    TaskSecrets,
)

_log = get_logger()

Question: TypeAlias = RenewalRequest | TaskQuestion


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    run: int
    box: bytes
    tokens: Mapping[str, str]
    until: float


_NOTHING = _Kept(run=0, box=b"", tokens={}, until=0.0)


class Vault:
    """Sealed boxes for the nodes that do a run, in memory only: for an hour, or until the run has ended.

    The admin server cannot open them, except those for itself.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, NodeId], _Kept] = {}

    def keep(
        self, task: str, run: int, boxes: Mapping[NodeId, bytes], tokens: Mapping[str, str] | None = None
    ) -> None:
        """Keep the boxes of a run, and enrolment tokens for it; those of earlier runs of the task go.

        Raises:
            Unavailable: too many are kept.
        """
        self.forget(task)
        self.expire()
        if len(self._kept) + len(boxes) > limits.SECRETS_KEPT_MAX:
            raise Unavailable(
                f"{len(self._kept)} nodes have not asked for the secrets of their tasks yet",
                hint="wait until they have done these, or until an hour is over",
            )
        until = self._clock() + limits.SECRETS_LIFE_S
        for node, box in boxes.items():
            self._kept[task, node] = _Kept(run=run, box=box, tokens=tokens or {}, until=until)

    def find(self, task: str, run: int, node: NodeId) -> TaskSecrets:
        """Return what there is for a node's run; empty when there is nothing."""
        self.expire()
        kept = self._kept.get((task, node), _NOTHING)
        if kept.run != run:
            kept = _NOTHING
        return TaskSecrets(task=task, run=run, box=kept.box, tokens=dict(kept.tokens))

    def forget(self, task: str, *, node: NodeId | None = None, run: int | None = None) -> None:
        """Drop the boxes of a task: all, or those of a node, of a run."""
        for key, kept in list(self._kept.items()):
            if key[0] == task and node in (None, key[1]) and run in (None, kept.run):
                del self._kept[key]

    def expire(self) -> None:
        """Drop what was kept for as long as it may be."""
        now = self._clock()
        for key in [key for key, kept in self._kept.items() if kept.until <= now]:
            del self._kept[key]


class Answers:
    """Answers what nodes ask for. Their messages are in the store already.

    Args:
        directory: Who is attached.
        desk: What seals and sends, and has heard from whom.
        admission: What makes certificates.
        resting: Whether a node rests: it has come, and has gone to sleep.

    Attributes:
        vault: The secrets of runs.
        own: Takes the answers to what the admin server's own runs ask.
    """

    def __init__(
        self,
        node: NodeId,
        directory: Directory,
        desk: Desk,
        admission: Admission,
        resting: Callable[[NodeId], bool],
    ) -> None:
        self._node = node
        self._directory = directory
        self._desk = desk
        self._admission = admission
        self._resting = resting
        self._awaited: dict[str, dict[NodeId, NodeAwaited]] = {}
        self.vault = Vault()
        self.own: Callable[[TaskAnswer], None] = lambda answer: None

    async def give(self, asker: NodeId, question: Question) -> None:
        """Answer a node, if it is still attached; else it asks again."""
        match question:
            case RenewalRequest() if (device := self._directory.get(asker)) is not None:
                await self._renew(device, question)
            case SecretsRequest(task=task, run=run):
                await self._send(asker, self.vault.find(task, run, asker))
            case NodeAwaited():
                await self._await_node(asker, question)

    async def came(self, node: NodeId) -> None:
        """A node was heard from: tell who waits for it."""
        for asker, question in self._awaited.pop(node, {}).items():
            await self._send(asker, NodeCame(task=question.task, run=question.run, node=node))

    async def _await_node(self, asker: NodeId, question: NodeAwaited) -> None:
        if asker != self._node and self._directory.grant(asker, int(time.time()), "deploy") is None:
            return
        node = NodeId(question.node)
        device = self._directory.get(node)
        if (device is not None and self._desk.has_heard(device)) or self._resting(node):
            await self._send(asker, NodeCame(task=question.task, run=question.run, node=node))
            return
        while len(self._awaited) >= limits.NODES_AWAITED_MAX:
            del self._awaited[next(iter(self._awaited))]  # whoever waits for it asks again
        self._awaited.setdefault(node, {})[asker] = question

    async def _send(self, asker: NodeId, answer: TaskAnswer) -> None:
        if asker == self._node:
            self.own(answer)
        elif (device := self._directory.get(asker)) is not None:
            await self._desk.send(device, answer)

    async def _renew(self, device: Device, question: RenewalRequest) -> None:
        try:
            pem = await self._admission.certificate(device, question)
        except P2PDistError as error:
            _log.warning("certificate.refused", node=device.node, reason=str(error))
            return
        await self._desk.send(device, Certificate(certificate=pem))
