"""Content inside of a link: a stream that a device opens to the swarm of the neighbour that carries it."""

from __future__ import annotations

from typing import Final

import msgspec

SWARM_PATH: Final = "/swarm"
"""Where a stream of a link that leads to the neighbour's own swarm is served."""


class SwarmOpening(msgspec.Struct, frozen=True, kw_only=True):
    """What such a stream is opened with. What flows on it is a connection of the swarm, with its own TLS."""
