"""Answers to what nodes ask for in envelopes: new certificates, and the secrets of their runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.server.control.admit import Admission
from p2pdist.server.control.desk import Desk
from p2pdist.server.control.devices import Device, Directory
from p2pdist.wire.messages import Certificate, RenewalRequest
from p2pdist.wire.secrets import SecretsRequest, TaskSecrets

_log = get_logger()

Question = RenewalRequest | SecretsRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    run: int
    box: bytes
    until: float


class Vault:
    """Sealed boxes for the nodes that do a run, in memory only: for an hour, or until the run has ended.

    The admin server cannot open them, except those for itself.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, NodeId], _Kept] = {}

    def keep(self, task: str, run: int, boxes: Mapping[NodeId, bytes]) -> None:
        """Keep the boxes of a run; those of earlier runs of the task go.

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
            self._kept[task, node] = _Kept(run=run, box=box, until=until)

    def find(self, task: str, run: int, node: NodeId) -> bytes:
        """Return the box of a node for a run; empty when there is none."""
        self.expire()
        kept = self._kept.get((task, node))
        return kept.box if kept is not None and kept.run == run else b""

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
    """Answers what nodes ask for. Their messages are in the store already."""

    def __init__(self, directory: Directory, desk: Desk, admission: Admission) -> None:
        self._directory = directory
        self._desk = desk
        self._admission = admission
        self.vault = Vault()

    async def give(self, node: NodeId, question: Question) -> None:
        """Answer a node, if it is still attached; else it asks again."""
        device = self._directory.get(node)
        if device is None:
            return
        match question:
            case RenewalRequest():
                await self._renew(device, question)
            case SecretsRequest():
                await self._desk.send(device, self.secrets(node, question))

    def secrets(self, node: NodeId, question: SecretsRequest) -> TaskSecrets:
        """Return what was sealed for a node's run."""
        box = self.vault.find(question.task, question.run, node)
        return TaskSecrets(task=question.task, run=question.run, box=box)

    async def _renew(self, device: Device, question: RenewalRequest) -> None:
        try:
            pem = await self._admission.certificate(device, question)
        except P2PDistError as error:
            _log.warning("certificate.refused", node=device.node, reason=str(error))
            return
        await self._desk.send(device, Certificate(certificate=pem))
