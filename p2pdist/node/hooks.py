"""What a program adds to a member's runtime: what to install, what to prefetch, whom to carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from p2pdist.core.deployment_model import RefusalKind
from p2pdist.net.link import Link, OfferedStream
from p2pdist.swarm.session import SwarmEvent
from p2pdist.trust.catalog import Catalog
from p2pdist.wire.frames import Announce, AnyFrame, ContentRefused
from p2pdist.wire.messages import DesiredState, SendWakes
from p2pdist.wire.paths import PathOpening
from p2pdist.wire.questions import TaskAnswer


class Hooks(Protocol):
    """What a program adds to the runtime. Every method is called from the runtime's own tasks."""

    async def linked(self) -> None:
        """A link to a neighbour stands."""

    def unlinked(self) -> None:
        """The link to a neighbour has ended."""

    async def state_changed(self, desired: DesiredState, catalog: Catalog | None) -> None:
        """The desired state or the catalog is new."""

    async def received(self, ids: list[str]) -> None:
        """The admin server has stored these reports and refusals."""

    async def content_event(self, event: SwarmEvent) -> None:
        """Something happened in the swarm."""

    async def content_refused(self, frame: ContentRefused) -> None:
        """A neighbour reports that a source served bad bytes."""

    async def passing_frame(self, frame: AnyFrame) -> None:
        """A frame for somebody whom this node carries."""

    async def session_path(self, link: Link, opening: PathOpening, offered: OfferedStream) -> None:
        """A path of a session with this node, or with somebody whom it carries. Returns when it is over."""

    def announced(self, announce: Announce) -> None:
        """This is what the node takes part in now."""

    def installed(self) -> Mapping[str, int]:
        """``channel/product`` to the sequence number that is installed."""

    async def wakes(self, message: SendWakes) -> None:
        """The admin server wants devices woken."""

    def task_answer(self, message: TaskAnswer) -> None:
        """The admin server's answer to what a run has asked."""

    async def refuse(self, kind: RefusalKind, subject: str, reason: str) -> None:
        """Something was refused for want of trust; report it until the admin server has it."""
