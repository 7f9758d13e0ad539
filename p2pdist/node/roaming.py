"""A machine that moves: office, home, hotel. Its link is looked at when its network changes."""

from __future__ import annotations

from collections.abc import Mapping

from p2pdist.errors import Unavailable
from p2pdist.logs import get_logger
from p2pdist.net.netlink import is_own_address, network_changes, source_towards
from p2pdist.node.uplink import Uplink

_log = get_logger()


async def follow_network(uplink: Uplink) -> None:
    """Have the link dialled anew when the machine has moved, until cancelled.

    It has moved when an address went away from which it reached those who may carry it, or when it reaches
    them from another one than before. Whatever else the kernel tells of (containers come and go) is no news;
    and where it tells nothing, a link whose other end is out of reach is still given up for its silence.
    """
    before = _sources(uplink)
    try:
        async for gone in network_changes():
            now, link = _sources(uplink), uplink.link
            cut = link is not None and (link.local_host in gone or not is_own_address(link.local_host))
            known = {host: before.get(host, source) for host, source in now.items()}
            if cut or known != now or not gone.isdisjoint(before.values()):
                _log.info("network.changed", sources=sorted({s for s in now.values() if s is not None}))
                uplink.network_changed(cut=cut)
            before = now
    except Unavailable as error:
        _log.warning("network.not_followed", reason=str(error))


def _sources(uplink: Uplink) -> Mapping[str, str | None]:
    return {host: source_towards(host) for host in uplink.hosts}
