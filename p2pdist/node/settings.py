"""What the runtime of a member is told by its program."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from p2pdist.core.services import ServicePolicy
from p2pdist.swarm.tuning import REQUESTS
from p2pdist.wire.frames import Role
from p2pdist.wire.messages import RateLimits


class MemberSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a program's configuration says about the runtime.

    ``link_host`` is the address to dial from; ``swarm_host`` and ``swarm_port`` where the swarm listens;
    ``rates`` the node's own limits, beside those of its group and its grant; ``policy`` what operators may
    do, and ``session_ports`` the UDP ports of their direct and punched paths (0: any). One that is
    ``dialled`` dials nobody, whatever its grant says.
    """

    role: Role
    name: str
    link_host: str | None
    swarm_host: str
    swarm_port: int
    swarm_requests: int = REQUESTS
    rates: RateLimits = RateLimits()
    policy: ServicePolicy = ServicePolicy()
    session_ports: Sequence[int] = (0,)
    dialled: bool = False
