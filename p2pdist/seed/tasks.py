"""A distribution point's part in tasks: its way to the admin server, and its grant."""

from __future__ import annotations

import time

import trio

from p2pdist.core.tasks import why_not
from p2pdist.duties.runner import Said
from p2pdist.node.member import Member
from p2pdist.trust.catalog import Duty
from p2pdist.trust.keys import IdentityKey

_GRANT_S = 10.0  # a new grant and what is assigned because of it come by different ways


class RunnerPorts:
    """What the :class:`~p2pdist.duties.runner.Runner` needs of a distribution point."""

    def __init__(self, member: Member) -> None:
        self._member = member

    async def say(self, message: Said) -> bool:
        """Send a message to the admin server if there is a way now."""
        return await self._member.send(message)

    @property
    def key(self) -> IdentityKey:
        """This node's identity."""
        return self._member.home.key

    async def objection(self, duty: Duty) -> str:
        """Say why this node must not do what *duty* is for, by its verified grant; empty when it may."""
        with trio.move_on_after(_GRANT_S):
            while why_not(self._member.grants.own(), duty, int(time.time())):
                await self._member.metadata.newer.wait()
        return why_not(self._member.grants.own(), duty, int(time.time()))
