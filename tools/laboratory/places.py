"""Places: networks of one kind, out of namespaces, links and rules."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from laboratory.core import ROUTING, Core, Uplink, harden, uplink_lines
from laboratory.kinds import Filtering, Kind, Layout, Nat
from laboratory.namespaces import LaboratoryError, Namespace, Namespaces
from laboratory.rules import TURNED_BITS, Inside, dmz_rules, firewall_rules, nat_rules

HOSTS_MAX = 8
"""Hosts of a place: each has its own eighth of the upper ports to call from, so that a NAT finds room for
all."""

_PORTS_EACH = 4096
_CARRIER_NAT = Nat(filtering=Filtering.ENDPOINT_INDEPENDENT, hairpin=True)


@dataclass(frozen=True, slots=True)
class Host:
    """A machine in the network, with its own addresses: private ones, where a NAT stands before it."""

    namespace: Namespace
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]

    @property
    def name(self) -> str:
        """The place's name and the host's number in it."""
        return self.namespace.name

    def command(self, *command: str) -> list[str]:
        """Return the command line that runs *command* on this host; see :meth:`Namespace.command`."""
        return self.namespace.command(*command)

    def run(self, *command: str) -> str:
        """Run *command* on this host, and return what it printed; LaboratoryError says what it said."""
        return self.namespace.run(*command)


class _Translator:
    """A NAT in a router that stands."""

    def __init__(self, router: Namespace, nat: Nat, outside: str, inside: Sequence[str]) -> None:
        self._router = router
        self._nat = nat
        self._outside = outside
        self._inside = inside
        self._turned: list[int] = []
        router.settings(
            {
                "netfilter/nf_conntrack_udp_timeout": nat.udp_timeout_s,
                "netfilter/nf_conntrack_udp_timeout_stream": nat.udp_timeout_s,
                "netfilter/nf_conntrack_tcp_loose": 0,
            }
        )
        self.renew()

    def renew(self) -> None:
        """Map to other ports than before, and forget all connections."""
        free = [bits for bits in TURNED_BITS if bits not in self._turned]
        self._turned = random.sample(free, len(self._inside))
        inside = [Inside(address, bits) for address, bits in zip(self._inside, self._turned, strict=True)]
        self._router.rules(nat_rules(self._nat, self._outside, inside))
        self._router.run("conntrack", "--flush")


class Place:
    """A network of one kind, and its hosts.

    In a DMZ the first host stands in the demilitarised zone, the others inside. In a carrier's network each
    host has a home of its own. Everywhere else the hosts share one LAN.

    Attributes:
        hosts: The hosts.
        outside: The address under which a NAT shows them all; none where there is no NAT.
    """

    def __init__(
        self, kind: Kind, name: str, hosts: int, uplink: Uplink | None, core: Core, namespaces: Namespaces
    ) -> None:
        if not 1 <= hosts <= HOSTS_MAX:
            raise LaboratoryError(f"{name}: 1 to {HOSTS_MAX} hosts fit into a place, not {hosts}")
        self.kind = kind
        self.name = name
        self._core = core
        self._namespaces = namespaces
        self._translators: list[_Translator] = []
        self.outside: tuple[str, ...] = ()
        self._router = self._make_namespace("router")
        self._link = core.attach(self._router, "wan", uplink)
        build = {
            Layout.SWITCH: self._build_switch,
            Layout.ROUTER: self._build_router,
            Layout.CARRIER: self._build_carrier,
            Layout.DMZ: self._build_dmz,
        }
        self.hosts: tuple[Host, ...] = tuple(build[kind.layout](hosts))

    def partition(self) -> None:
        """Cut the place off: its packets vanish in the core, and nobody is told."""
        self._core.cut(self._link, True)

    def heal(self) -> None:
        """End a partition."""
        self._core.cut(self._link, False)

    def lose(self, percent: int) -> None:
        """Lose so many packets in a hundred at random, each way; 0 ends it."""
        self._core.lose(self._link, percent)

    def rebind(self) -> None:
        """Let every NAT of the place forget its mappings: the next packet of each socket gets another port.

        What came over the old ones is lost, TCP connections too. LaboratoryError where there is no NAT.
        """
        if not self._translators:
            raise LaboratoryError(f"{self.name}: no NAT here that could rebind")
        for translator in self._translators:
            translator.renew()

    def take_in(self, guest: Host, *, at: int) -> Host:
        """Plug a host of another place into this one's LAN, at the address of host number *at*, and return it
        as it stands here. The cables of both hosts are pulled first: ours has none after that.

        LaboratoryError where the hosts of this place do not share a LAN behind its router.
        """
        if self.kind.layout is not Layout.ROUTER:
            raise LaboratoryError(f"{self.name}: no LAN behind a router here")
        for host in (self.hosts[at], guest):
            host.run("sh", "-c", "ip link delete eth0 2>/dev/null || true")
        self._wire(guest.namespace, self._router, "lan", at)
        return self._at_home(guest.namespace, at)

    def _build_switch(self, hosts: int) -> list[Host]:
        self._bridge(self._router, address="")
        self._router.ip("link set wan master lan")
        addresses = self._core.addresses(hosts)
        made = [self._public_host(number, *pair) for number, pair in enumerate(addresses)]
        for host, own in zip(made, addresses, strict=True):
            others = [address for pair in addresses if pair != own for address in pair]
            host.namespace.ip(*(f"route add {address} dev eth0" for address in others))
        return made

    def _public_host(self, number: int, ipv4: str, ipv6: str) -> Host:
        host = self._wire_host(self._router, "lan", number)
        host.ip(*uplink_lines("eth0", ipv4, ipv6))
        self._core.route(ipv4, self._link)
        self._core.route(ipv6, self._link)
        return Host(host, (ipv4,), (ipv6,))

    def _build_router(self, hosts: int) -> list[Host]:
        [(outside, outside_ipv6)] = self._core.addresses()
        self.outside = (outside,)
        self._make_router(self._router)
        has_ipv6 = self.kind.ipv6 is not None
        self._router.ip(*uplink_lines("wan", outside, *([outside_ipv6] if has_ipv6 else [])))
        self._core.route(outside, self._link)
        if has_ipv6:
            self._core.route(outside_ipv6, self._link)
            self._router.ip("address add fe80::1/64 dev lan nodad")
        self._router.rules(firewall_rules(self.kind.outgoing))
        made = [self._home_host(self._router, number) for number in range(hosts)]
        inside = [host.ipv4[0] for host in made]
        self._translators.append(_Translator(self._router, self.kind.nat, outside, inside))
        if not has_ipv6:
            return made
        own = [ipv6 for _, ipv6 in self._core.addresses(hosts)]
        return [self._with_ipv6(host, ipv6, outside_ipv6) for host, ipv6 in zip(made, own, strict=True)]

    def _with_ipv6(self, host: Host, ipv6: str, router_ipv6: str) -> Host:
        host.namespace.ip(
            f"address add {ipv6}/128 dev eth0 nodad", "route add default via fe80::1 dev eth0 onlink"
        )
        self._router.ip(f"route add {ipv6} dev lan")
        self._core.route(ipv6, self._link, via=router_ipv6)
        return Host(host.namespace, host.ipv4, (ipv6,))

    def _build_carrier(self, hosts: int) -> list[Host]:
        [(outside, _)] = self._core.addresses()
        self.outside = (outside,)
        self._make_router(self._router, "100.64.0.1/24")
        self._router.ip(*uplink_lines("wan", outside))
        self._core.route(outside, self._link)
        self._router.rules(firewall_rules(self.kind.outgoing))
        homes = [f"100.64.0.{10 + number}" for number in range(hosts)]
        self._translators.append(_Translator(self._router, _CARRIER_NAT, outside, homes))
        return [self._build_home(number, address) for number, address in enumerate(homes)]

    def _build_home(self, number: int, outside: str) -> Host:
        home = self._make_namespace(f"home{number}")
        self._make_router(home)
        self._router.ip(
            f"link add home{number} type veth peer name wan netns {home.pid}",
            f"link set home{number} master lan up",
        )
        home.ip(
            f"address add {outside}/24 dev wan", "link set wan up", "route add default via 100.64.0.1 dev wan"
        )
        home.rules(firewall_rules(self.kind.outgoing))
        host = self._home_host(home, number)
        self._translators.append(_Translator(home, self.kind.nat, outside, host.ipv4))
        return host

    def _build_dmz(self, hosts: int) -> list[Host]:
        [(own, _), (outside, _)] = self._core.addresses(2)
        self._make_router(self._router)
        self._router.ip(*uplink_lines("wan", own))
        self._core.route(own, self._link)
        self._core.route(outside, self._link, via=own)
        first = self._wire_host(self._router, "", 0)
        self._router.ip("link set host0 name dmz", "link set dmz up", f"route add {outside} dev dmz")
        first.ip(
            f"address add {outside}/32 dev eth0",
            "link set eth0 up",
            "route add default via 192.168.1.1 dev eth0 onlink",
        )
        self._router.rules(dmz_rules())
        inside = [self._home_host(self._router, number) for number in range(1, hosts)]
        return [Host(first, (outside,), ()), *inside]

    def _home_host(self, router: Namespace, number: int) -> Host:
        return self._at_home(self._wire_host(router, "lan", number), number)

    def _at_home(self, host: Namespace, number: int) -> Host:
        address = f"192.168.1.{10 + number}"
        host.ip(f"address add {address}/24 dev eth0", "link set eth0 up", "route add default via 192.168.1.1")
        return Host(host, (address,), ())

    def _wire_host(self, router: Namespace, bridge: str, number: int) -> Namespace:
        host = self._make_namespace(f"{number}")
        self._wire(host, router, bridge, number)
        return host

    def _wire(self, host: Namespace, router: Namespace, bridge: str, number: int) -> None:
        first_port = 65_536 - (HOSTS_MAX - number) * _PORTS_EACH
        host.settings({"ipv4/ip_local_port_range": f"{first_port} {first_port + _PORTS_EACH - 1}"})
        port = f"host{number}"
        lines = [f"link add {port} type veth peer name eth0 netns {host.pid}"]
        if bridge:
            lines.append(f"link set {port} master {bridge} up")
            if self.kind.isolated:
                lines.append(f"link set {port} type bridge_slave isolated on")
        router.ip(*lines)

    def _make_router(self, router: Namespace, address: str = "192.168.1.1/24") -> None:
        router.settings(ROUTING)
        self._bridge(router, address)

    def _bridge(self, router: Namespace, address: str) -> None:
        lines = ["link add lan type bridge mcast_snooping 0", "link set lan up"]
        if address:
            lines.append(f"address add {address} dev lan")
        router.ip(*lines)
        router.run("sh", "-c", _LET_BRIDGES_BE)

    def _make_namespace(self, name: str) -> Namespace:
        namespace = self._namespaces.create(f"{self.name}-{name}")
        harden(namespace)
        return namespace


_LET_BRIDGES_BE = """
for rules in /proc/sys/net/bridge/bridge-nf-call-*; do if [ -e "$rules" ]; then echo 0 >"$rules"; fi; done
"""
"""Where the module br_netfilter is loaded, a bridge asks the firewall about its own hosts' packets."""
