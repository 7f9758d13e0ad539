"""What a kind of work is given while it runs, and what it gives back. See :mod:`p2pdist.duties.kinds`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import nacl.utils
import trio

from p2pdist import limits
from p2pdist.errors import Unavailable, UsageError
from p2pdist.ids import NodeId
from p2pdist.node.reports import Bell
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.secrets import open_secrets
from p2pdist.wire import codec
from p2pdist.wire.discovery import Sighting
from p2pdist.wire.following import Offer
from p2pdist.wire.questions import (
    NodeAwaited,
    NodeCame,
    SecretsRequest,
    TaskAnswer,
    TaskQuestion,
    TaskSecrets,
)
from p2pdist.wire.tasks import (
    Assignment,
    Findings,
    Outcome,
    TaskItem,
    TaskItems,
    TaskOffers,
    TaskProgress,
    TaskSightings,
)

S = TypeVar("S", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run has ended. Whoever returns it has left nothing running.

    Attributes:
        reason: A sentence for people; needed unless all is done.
        figures: What was counted: ``{"asked": 254, "answered": 3}``.
    """

    outcome: Outcome = "done"
    reason: str = ""
    figures: Mapping[str, int] = field(default_factory=dict)


class RunPort:
    """One run's way to say how far it is. What is said is sent at most once a second, and the newest again
    while there is no way.

    Attributes:
        tokens: Enrolment tokens by host, once :meth:`secrets` has returned.

    Args:
        assignment: The run.
        say: Sends progress and questions, which may be lost.
        room: Waits until more items are taken in.
        add: Takes items and sightings in, which are repeated until they are confirmed.
        key: The node's identity.
    """

    def __init__(
        self,
        assignment: Assignment,
        *,
        say: Callable[[TaskProgress | TaskQuestion], Awaitable[bool]],
        room: Callable[[], Awaitable[None]],
        add: Callable[[Findings], None],
        key: IdentityKey,
    ) -> None:
        self.task = assignment.task
        self.run = assignment.run
        self._say = say
        self._room = room
        self._add = add
        self._key = key
        self._work = assignment.work
        self._answer: TaskSecrets | None = None
        self._answered = Bell()
        self.tokens: Mapping[str, str] = {}
        self._came: dict[NodeId, trio.Event] = {}
        self._progress: TaskProgress | None = None
        self._items: dict[str, TaskItem] = {}
        self._sightings: list[Sighting] = []
        self._sightings_bytes = 0
        self._news = Bell()

    def progress(self, step: str, *, done: int = 0, total: int = 0, rate_bytes_per_s: int = 0) -> None:
        """Say what the run does right now, and how much of it is done."""
        self._progress = TaskProgress(
            task=self.task,
            run=self.run,
            step=step[: limits.TASK_STEP_CHARS_MAX],
            done=done,
            total=total,
            rate_bytes_per_s=rate_bytes_per_s,
        )
        self._news.ring()

    async def item(self, item: TaskItem) -> None:
        """Say what came of one thing; what was said of the same subject before is replaced.

        Waits while the admin server is so far behind, or away, that there is no room.
        """
        self._items[item.subject] = item
        self._news.ring()
        if len(self._items) >= limits.TASK_ITEMS_AT_ONCE:
            await self._pass_on()

    async def saw(self, sighting: Sighting) -> None:
        """Say what was seen of a device, for the inventory. Waits as :meth:`item` does."""
        size = len(codec.encode(sighting))
        full = len(self._sightings) >= limits.SIGHTINGS_AT_ONCE
        if full or self._sightings_bytes + size > limits.SIGHTINGS_BYTES_MAX:
            await self._pass_on()
        self._sightings.append(sighting)
        self._sightings_bytes += size
        self._news.ring()

    async def found_offers(self, offers: Sequence[Offer], date: int) -> None:
        """Say what is on offer, which is everything, as an index of *date* (Unix seconds; 0: unknown) has it.

        Waits as :meth:`item` does.

        Raises:
            UsageError: it is more than a message takes.
        """
        size = len(codec.encode(list(offers)))
        if len(offers) > limits.FOLLOW_OFFERS_MAX or size > limits.FOLLOW_OFFERS_BYTES_MAX:
            raise UsageError(
                f"{len(offers)} versions on offer do not fit into a message",
                hint="choose fewer packages, or make several tasks",
            )
        await self._room()
        identifier = nacl.utils.random(12).hex()
        self._add(TaskOffers(id=identifier, task=self.task, run=self.run, date=date, offers=list(offers)))

    async def secrets(self, kind: type[S]) -> S:
        """Return what the operator has sealed for this run; keep it in memory, and no longer than needed.

        Waits while the admin server is away.

        Raises:
            Unavailable: nobody has given any, or they are gone.
            TrustError: they are not for this node and this work.
        """
        while self._answer is None:
            await self._say(SecretsRequest(task=self.task, run=self.run))
            await self._answered.wait(limits.TASK_ASK_AGAIN_S)
        answer, self._answer = self._answer, None
        if not answer.box:
            raise Unavailable(
                "the secrets for this run are gone, or nobody has given any: the admin server keeps them in"
                " memory, for an hour",
                hint=f"give them again: p2pdist task run {self.task} --secrets FILE",
            )
        self.tokens = answer.tokens
        return open_secrets(answer.box, kind, work=self._work, key=self._key, now=int(time.time()))

    async def came(self, node: NodeId) -> None:
        """Wait until the admin server has heard from *node*, a new device."""
        event = self._came.setdefault(node, trio.Event())
        while not event.is_set():
            await self._say(NodeAwaited(task=self.task, run=self.run, node=node))
            with trio.move_on_after(limits.TASK_ASK_AGAIN_S):
                await event.wait()

    def answered(self, answer: TaskAnswer) -> None:
        """Take in the answer to :meth:`secrets` or :meth:`came`. For the runner."""
        match answer:
            case TaskSecrets():
                self._answer = answer
                self._answered.ring()
            case NodeCame(node=node):
                if (event := self._came.get(NodeId(node))) is not None:
                    event.set()

    async def tell(self) -> None:
        """Send what is said until cancelled. For the runner."""
        while True:
            await self._news.wait()
            progress, self._progress = self._progress, None
            if progress is not None and not await self._say(progress) and self._progress is None:
                self._progress = progress
                self._news.ring()
            await self._pass_on()
            await trio.sleep(limits.TASK_PROGRESS_EVERY_S)

    def last_findings(self) -> list[Findings]:
        """Return what was found and not sent yet; the run has ended. For the runner."""
        items = [self._taken() for _ in range(0, len(self._items), limits.TASK_ITEMS_AT_ONCE)]
        return [*items, *([self._seen()] if self._sightings else [])]

    async def _pass_on(self) -> None:
        if self._items or self._sightings:
            await self._room()
        if self._items:
            self._add(self._taken())
        if self._sightings:
            self._add(self._seen())

    def _seen(self) -> TaskSightings:
        sightings, self._sightings, self._sightings_bytes = self._sightings, [], 0
        identifier = nacl.utils.random(12).hex()
        return TaskSightings(id=identifier, task=self.task, run=self.run, sightings=sightings)

    def _taken(self) -> TaskItems:
        subjects = list(self._items)[: limits.TASK_ITEMS_AT_ONCE]
        items = [self._items.pop(subject) for subject in subjects]
        return TaskItems(id=nacl.utils.random(12).hex(), task=self.task, run=self.run, items=items)
