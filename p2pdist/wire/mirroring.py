"""The work of reading vendors' mirrors: which releases, and with whom the reading is shared."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.frames import NodeIdText

TargetText = Annotated[str, Meta(min_length=1, max_length=limits.TARGET_PATH_CHARS_MAX)]
"""A target path, or a pattern of them such as ``stable/app/*``; see :mod:`p2pdist.core.mirrored`."""

MeantText = Annotated[str, Meta(min_length=1, max_length=limits.GROUP_PATH_CHARS_MAX)]
"""A node's id, or a group's path, which stands for the distribution points that serve it."""

Share = Literal["fleet", "site"]
"""``fleet``: each range leaves a mirror once, and points pass it on. ``site``: each node reads all of it."""


class ReadMirrors(msgspec.Struct, frozen=True, kw_only=True, tag_field="work", tag="read-mirrors"):
    """Get releases from the mirrors that their signed targets name.

    ``readers`` are the nodes among which the fleet's reading is divided, the same for everybody; the admin
    server fills them in. Who is not among them takes everything from those. ``meant`` is of whom the
    operator has spoken, nodes and groups: who is to read is found out anew when a run begins.
    """

    targets: Annotated[list[TargetText], Meta(min_length=1, max_length=limits.MIRROR_TARGETS_MAX)]
    share: Share = "fleet"
    readers: Annotated[list[NodeIdText], Meta(max_length=limits.TASK_NODES_MAX)] = msgspec.field(
        default_factory=list
    )
    meant: Annotated[list[MeantText], Meta(max_length=limits.TASK_NODES_MAX)] = msgspec.field(
        default_factory=list
    )
