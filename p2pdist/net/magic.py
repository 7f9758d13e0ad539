"""Wake-on-LAN: magic packets onto the segments of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from p2pdist.net.rtc.addresses import is_inside
from p2pdist.net.wakes import Segment, WakeSender
from p2pdist.wire.wakes import magic_packet

_INTERFACES: Final = Path("/sys/class/net")
_ETHERNET: Final = "1"  # ARPHRD_ETHER, of linux/if_arp.h
_DISCARD_PORT: Final = 9  # nobody reads it there; the interface of the sleeping machine looks for the pattern


def send_magic(sender: WakeSender, macs: Iterable[str], segments: Sequence[Segment]) -> None:
    """Wake the machines whose interfaces have these hardware addresses, if they sleep on one of *segments*.

    Raises:
        UsageError: one is no hardware address.
    """
    for mac in macs:
        sender.to_segments(magic_packet(mac), _DISCARD_PORT, segments)


def hardware_addresses() -> Sequence[str]:
    """Return the hardware addresses of this machine's interfaces, without bridges of containers. Blocking."""
    found: dict[str, None] = {}
    for interface in sorted(_INTERFACES.iterdir()) if _INTERFACES.is_dir() else ():
        try:
            kind, mac = ((interface / name).read_text().strip() for name in ("type", "address"))
        except OSError:  # it has gone
            continue
        if kind == _ETHERNET and mac.strip("0:") and not is_inside(interface.name):
            found[mac.lower()] = None
    return list(found)
