"""Tasks of nodes: what they are to do, and how far they are."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.api.base import Answer, Request
from p2pdist.wire.work import AnyWork

NodeText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        description="'server', a device's name, its id, or its beginning; or a group, for its points",
    ),
]


class SealedSecrets(Request, frozen=True, kw_only=True):
    """What a run needs that nobody may read but the node that does it, sealed for that node."""

    node: Annotated[str, Meta(min_length=1, max_length=255, description="the node's id")]
    box: Annotated[bytes, Meta(min_length=1, max_length=limits.SECRETS_BOX_BYTES_MAX)]

    def __repr__(self) -> str:
        return f"SealedSecrets(node={self.node!r}, …)"


Secrets = Annotated[list[SealedSecrets], Meta(max_length=limits.TASK_NODES_MAX)]


class NewTask(Request, frozen=True, kw_only=True):
    """Make a task. Without a schedule, ``after`` and ``on_metadata`` it runs once, at once.

    A node that has not begun a run within ``window_s`` of its time leaves it. With ``spread_s`` the nodes
    begin at different moments within so many seconds. ``schedule`` is a cron line in the time of ``zone``.
    ``after`` is the id of a task: a run begins when every node has done a run of that. With ``on_metadata``
    one begins when newer metadata is published. While a run is under way, both wait for its end.
    """

    work: AnyWork
    nodes: Annotated[list[NodeText], Meta(min_length=1, max_length=limits.TASK_NODES_MAX)]
    window_s: Annotated[int, Meta(ge=60, le=limits.TASK_WINDOW_S_MAX)] = 3_600
    spread_s: Annotated[int, Meta(ge=0, le=limits.TASK_WINDOW_S_MAX)] = 0
    schedule: Annotated[str, Meta(max_length=limits.SCHEDULE_CHARS_MAX)] = ""
    zone: Annotated[str, Meta(max_length=64)] = "UTC"
    after: Annotated[str, Meta(max_length=64)] = ""
    on_metadata: bool = False
    secrets: Secrets = msgspec.field(default_factory=list)
    """Kept in memory, for an hour at most: only for what begins at once."""


class RunTask(Request, frozen=True, kw_only=True):
    """Begin another run."""

    secrets: Secrets = msgspec.field(default_factory=list)


class NodeKey(Answer, frozen=True, kw_only=True):
    """The identity key of a node, for which secrets are sealed; its id is made from it."""

    node: str
    name: str
    public: bytes


class TaskNode(Answer, frozen=True, kw_only=True):
    """A node that does a task."""

    node: str
    name: str


class TaskInfo(Answer, frozen=True, kw_only=True):
    """A task. ``run`` is its newest run (0: none yet), ``states`` on how many nodes that is in which state.

    ``work`` is null, and ``problem`` says why, if this version of the server does not know such work.
    """

    id: str
    kind: str
    work: AnyWork | None
    problem: str
    nodes: list[TaskNode]
    created: int
    created_by: str
    window_s: int
    spread_s: int
    schedule: str
    zone: str
    next_at: int | None
    after: str
    on_metadata: bool
    run: int
    states: dict[str, int]


class TaskList(Answer, frozen=True, kw_only=True):
    """Every task, newest first."""

    tasks: list[TaskInfo]


class TaskRunNode(Answer, frozen=True, kw_only=True):
    """How far a run is on one node: ``waiting``, ``running``, or how it ended.

    That is ``done``, ``partly``, ``failed``, ``refused`` or ``cancelled``. ``confirmed`` says that the node
    itself has said how.
    """

    node: str
    name: str
    online: bool
    state: str
    step: str
    done: int
    total: int
    rate_bytes_per_s: int
    reason: str
    figures: dict[str, int]
    confirmed: bool
    seconds: float
    updated: int
    finished: int | None


class TaskItemInfo(Answer, frozen=True, kw_only=True):
    """One thing that a run is about, and what came of it."""

    node: str
    name: str
    subject: str
    state: str
    step: str
    detail: str
    size_bytes: int
    updated: int


class TaskRun(Answer, frozen=True, kw_only=True):
    """One run of a task. ``items`` are some of its ``items_total``."""

    task: str
    run: int
    finished: bool
    nodes: list[TaskRunNode]
    items_total: int
    items: list[TaskItemInfo] = msgspec.field(default_factory=list)
