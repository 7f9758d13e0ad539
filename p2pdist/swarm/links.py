"""The site's network and the WAN as libtorrent peer classes: their rates, and who belongs to which.

libtorrent's own "local" class takes private addresses for local, lets them escape every limit and
tries them first; on a private WAN all of that is wrong, so it is not used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import libtorrent as lt

from p2pdist.ids import NodeId
from p2pdist.swarm.model import Source
from p2pdist.wire.frames import Role
from p2pdist.wire.messages import RateLimits

_EVERYBODY: Final = (("0.0.0.0", "255.255.255.255"), ("::", "ffff:" * 7 + "ffff"))
_BLOCKED: Final = 1
BAN_S: Final = 600.0
"""How long an address that sent wrong bytes stays out. libtorrent's own ban ends when it dials us."""


class LinkClasses:
    """The two link classes of one session.

    A peer that no source names belongs to the WAN at the origin and to the site elsewhere: whoever
    dials a point or a device from outside its site is among the sources that the node was told.
    """

    def __init__(self, session: lt.session, role: Role) -> None:
        self._session = session
        self._site = session.create_peer_class("site")
        self._wan = session.create_peer_class("wan")
        self._others = self._wan if role == "origin" else self._site
        self._far: frozenset[str] = frozenset()
        self._near: frozenset[str] = frozenset()
        self._always_far: frozenset[str] = frozenset()
        self._nodes_at: dict[str, set[NodeId]] = {}
        self._banned: dict[str, float] = {}
        self._apply()
        self.limit(RateLimits())

    def limit(self, rates: RateLimits) -> None:
        """Set the rates of both classes, in bytes per second; 0 is unlimited."""
        for number, up, down in (
            (self._site, rates.site_up, rates.site_down),
            (self._wan, rates.wan_up, rates.wan_down),
        ):
            info = self._session.get_peer_class(number)
            info["upload_limit"] = up
            info["download_limit"] = down
            info["ignore_unchoke_slots"] = number == self._wan
            self._session.set_peer_class(number, info)

    def classify(self, sources: Iterable[Source]) -> None:
        """Put each source's address into its class; connections that are open stay where they are."""
        far: set[str] = set()
        near: set[str] = set()
        self._nodes_at = {}
        for source in sources:
            self._nodes_at.setdefault(source.host, set()).add(source.node)
            hosts = {source.host, *(endpoint.host for endpoint in source.endpoints)}
            (far if source.wan else near).update(hosts)
        if far != self._far or near != self._near:
            self._far, self._near = frozenset(far), frozenset(near)
            self._apply()

    def set_far(self, hosts: Iterable[str]) -> None:
        """Put these addresses into the class of the WAN, whether or not a source names them."""
        if self._always_far != frozenset(hosts):
            self._always_far = frozenset(hosts)
            self._apply()

    def disconnect(self, hosts: Iterable[str] | None) -> None:
        """Close the connections to these addresses, or to all (None), and forget them as peers.

        libtorrent has no other way than a filter: it is set, which closes, and lifted again.
        """
        self._filter({*self._banned, *hosts} if hosts is not None else None)
        self._filter(self._banned)

    def ban(self, node: NodeId, now: float) -> None:
        """Keep the address of a node out for a while, unless it shares the address with others."""
        for host, nodes in self._nodes_at.items():
            if nodes == {node}:
                self._banned[host] = now + BAN_S
        self._filter(self._banned)

    def lift_bans(self, now: float) -> frozenset[str]:
        """Let those in again whose time is over. Returns their addresses."""
        over = frozenset(host for host, until in self._banned.items() if until <= now)
        if over:
            self._banned = {host: until for host, until in self._banned.items() if until > now}
            self._filter(self._banned)
        return over

    def _filter(self, hosts: Iterable[str] | None) -> None:
        blocking = lt.ip_filter()
        for first, last in _EVERYBODY if hosts is None else ((host, host) for host in hosts):
            blocking.add_rule(first, last, _BLOCKED)
        self._session.set_ip_filter(blocking)

    def _apply(self) -> None:
        classes = lt.ip_filter()
        for first, last in _EVERYBODY:
            classes.add_rule(first, last, 1 << self._others)
        for hosts, number in (
            (self._near, self._site),
            (self._far | self._always_far, self._wan),
        ):
            for host in hosts:
                classes.add_rule(host, host, 1 << number)
        self._session.set_peer_class_filter(classes)
