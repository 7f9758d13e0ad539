"""One run of following, with everything that it says."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from p2pdist.duties.kinds import perform
from p2pdist.duties.run import Ended, RunPort
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.following import AnySource, Follow
from p2pdist.wire.tasks import Assignment, Findings, TaskOffers


class Followed:
    """What came of a run."""

    def __init__(self, ended: Ended, said: list[Findings]) -> None:
        self.ended = ended
        (self.offers,) = [each for each in said if isinstance(each, TaskOffers)] or [None]

    @property
    def versions(self) -> dict[str, str]:
        assert self.offers is not None
        return {offer.product: offer.version for offer in self.offers.offers}


async def run_follow(
    source: AnySource, *keys: bytes, ca_file: Path, seen: int = 0, dials: bool = True
) -> Followed:
    said: list[Findings] = []

    async def say(message: object) -> bool:
        return True

    async def room() -> None:
        return

    assignment = Assignment(task="t", run=1, not_after=int(time.time()) + 60, work=b"")
    port = RunPort(assignment, say=say, room=room, add=said.append, key=IdentityKey.generate())
    work = Follow(source=source, keys=list(keys), seen=seen)
    node: Any = SimpleNamespace(settings=MirrorSettings(ca_file=ca_file), dials=dials)
    ended = await perform(work, port, repository=node)
    return Followed(ended, said)
