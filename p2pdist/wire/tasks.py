"""Tasks of a node: what the admin server assigns, and what the node says of it.

An assignment stands in the desired state, so it is a statement like the rest of it: one that is gone is not
to be done any more, a higher number of its run is another run of the same task.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.discovery import Sighting
from p2pdist.wire.following import Offer
from p2pdist.wire.frames import Count, Text
from p2pdist.wire.message import Identifier, Message, UnixSeconds

Run = Annotated[int, Meta(ge=1, le=2**31 - 1)]
"""The number of a task's run."""
Step = Annotated[str, Meta(max_length=limits.TASK_STEP_CHARS_MAX)]

ItemState = Literal["waiting", "running", "done", "failed", "skipped"]
Outcome = Literal[
    "done",
    "partly",  # some of it was done, the items say what was not
    "failed",
    "refused",  # not begun: the node must not, cannot, or it is too late
    "cancelled",
]


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a task, for one node. It begins between two moments, as the node's clock has it.

    ``work`` is packed by :func:`p2pdist.wire.work.encode_work`. Nothing in it is secret: the desired state is
    written to the node's disk.
    """

    task: Identifier
    run: Run
    not_before: UnixSeconds = 0
    not_after: UnixSeconds
    work: Annotated[bytes, Meta(max_length=limits.WORK_BYTES_MAX)]


class TaskItem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a run is about (an address, a host, an artifact), and what came of it so far."""

    subject: Annotated[str, Meta(min_length=1, max_length=255)]
    state: ItemState
    step: Step = ""
    detail: Annotated[str, Meta(max_length=limits.TASK_DETAIL_CHARS_MAX)] = ""
    """For people: what was found, or why it failed."""
    size_bytes: Count = 0


class TaskProgress(Message, frozen=True, kw_only=True, tag="task-progress"):
    """How far a run is on this node; the newest replaces the ones before, and none is needed."""

    task: Identifier
    run: Run
    step: Step
    done: Count = 0
    total: Count = 0
    """What ``done`` goes up to; 0 while that is not known."""
    rate_bytes_per_s: Count = 0


class TaskItems(Message, frozen=True, kw_only=True, tag="task-items"):
    """Items of a run that are new or have changed. Repeated until a ``Received`` names its id."""

    id: Identifier
    task: Identifier
    run: Run
    items: Annotated[list[TaskItem], Meta(min_length=1, max_length=limits.TASK_ITEMS_AT_ONCE)]


class TaskSightings(Message, frozen=True, kw_only=True, tag="task-sightings"):
    """What a run has seen of devices, for the inventory. Repeated until a ``Received`` names its id."""

    id: Identifier
    task: Identifier
    run: Run
    sightings: Annotated[list[Sighting], Meta(min_length=1, max_length=limits.SIGHTINGS_AT_ONCE)]


class TaskOffers(Message, frozen=True, kw_only=True, tag="task-offers"):
    """Everything that a run has found on offer in the repository that it follows: what is missing is gone.

    Repeated until a ``Received`` names its id.
    """

    id: Identifier
    task: Identifier
    run: Run
    date: UnixSeconds = 0
    """When the index was signed that says so; 0: it does not say."""
    offers: Annotated[list[Offer], Meta(max_length=limits.FOLLOW_OFFERS_MAX)]


class TaskResult(Message, frozen=True, kw_only=True, tag="task-result"):
    """The end of a run on this node. Repeated until a ``Received`` names its id, after all else of it."""

    id: Identifier
    task: Identifier
    run: Run
    outcome: Outcome
    reason: Text = ""
    figures: Annotated[dict[Identifier, Count], Meta(max_length=limits.TASK_FIGURES_MAX)] = msgspec.field(
        default_factory=dict
    )
    """What was counted: ``{"asked": 254, "answered": 3}``."""
    seconds: Annotated[float, Meta(ge=0, le=2**40)] = 0.0
    finished: UnixSeconds


Findings: TypeAlias = TaskItems | TaskSightings | TaskOffers
Confirmed: TypeAlias = Findings | TaskResult
"""What a node repeats until the admin server has it on its disk."""
