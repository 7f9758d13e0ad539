"""What runs of tasks ask the admin server, again until they are answered, and what it answers."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.frames import NodeIdText
from p2pdist.wire.message import Identifier, Message
from p2pdist.wire.secrets import Box
from p2pdist.wire.tasks import Run

Subject = Annotated[str, Meta(min_length=1, max_length=255)]
Token = Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)]


class SecretsRequest(Message, frozen=True, kw_only=True, tag="secrets-request"):
    """A node asks for what was sealed for it."""

    task: Identifier
    run: Run


class TaskSecrets(Message, frozen=True, kw_only=True, tag="task-secrets"):
    """The answer: the box, empty where the admin server has none (any more)."""

    task: Identifier
    run: Run
    box: Box = b""
    tokens: Annotated[dict[Subject, Token], Meta(max_length=limits.INSTALL_HOSTS_MAX)] = msgspec.field(
        default_factory=dict
    )
    """Enrolment tokens by host, for work that makes devices; the admin server adds them."""

    def __repr__(self) -> str:
        """Return nothing that is secret, for tracebacks and logs."""
        return f"TaskSecrets(task={self.task!r}, run={self.run}, …)"


class NodeAwaited(Message, frozen=True, kw_only=True, tag="node-awaited"):
    """A node that installs agents waits until this one has come."""

    task: Identifier
    run: Run
    node: NodeIdText


class NodeCame(Message, frozen=True, kw_only=True, tag="node-came"):
    """The answer, once the admin server has heard from it."""

    task: Identifier
    run: Run
    node: NodeIdText


TaskQuestion: TypeAlias = SecretsRequest | NodeAwaited
TaskAnswer: TypeAlias = TaskSecrets | NodeCame
