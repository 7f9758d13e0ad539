"""Wake-on-LAN: magic packets onto the segments of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from p2pdist.net.wakes import Segment, WakeSender
from p2pdist.wire.wakes import magic_packet

_DISCARD_PORT: Final = 9  # nobody reads it there; the interface of the sleeping machine looks for the pattern


def send_magic(sender: WakeSender, macs: Iterable[str], segments: Sequence[Segment]) -> None:
    """Wake the machines whose interfaces have these hardware addresses, if they sleep on one of *segments*.

    Raises:
        UsageError: one is no hardware address.
    """
    for mac in macs:
        sender.to_segments(magic_packet(mac), _DISCARD_PORT, segments)
