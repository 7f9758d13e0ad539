"""The internet of a laboratory: one router between all public addresses, with weather."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

from laboratory.namespaces import LaboratoryError, Namespace, Namespaces
from laboratory.rules import weather_rules

GATEWAY_IPV4 = "26.0.0.1"
GATEWAY_IPV6 = "2d00::1"
_NETWORKS_MAX = 254
_QUEUE_MS = 100
_LINE = Path(__file__).with_name("line.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """A place's way to the internet."""

    up_mbit: float | None = None
    """Its rate from the place to the core, in Mbit/s, with a queue of 100 ms; none for as fast as it goes."""
    down_mbit: float | None = None
    """The other way."""
    delay_ms: float = 0.0
    """How long each packet takes, one way. A program passes them on: good for some 100 Mbit/s."""


class Core:
    """The router in the middle. Each link has the same gateway at this end, and single addresses at the
    other."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._namespace = namespaces.create("core")
        self._numbers = itertools.count(1)
        self._devices = itertools.count(1)
        self._cut: dict[str, None] = {}
        self._losses: dict[str, int] = {}
        harden(self._namespace)
        self._namespace.settings(ROUTING)

    def attach(self, namespace: Namespace, device: str, uplink: Uplink | None = None) -> str:
        """Connect a namespace, whose end gets the name *device*; return the name of this end."""
        number = next(self._devices)
        ours = f"place{number}"
        self._wire(number, f"name {device} netns {namespace.pid}", uplink.delay_ms if uplink else 0)
        self._namespace.ip(
            f"address add {GATEWAY_IPV4}/32 dev {ours}",
            f"address add {GATEWAY_IPV6}/128 dev {ours} nodad",
            f"link set {ours} gso_max_segs 1 up",
        )
        namespace.ip(f"link set {device} gso_max_segs 1 up")
        if uplink is not None and uplink.down_mbit is not None:
            _shape(self._namespace, ours, uplink.down_mbit)
        if uplink is not None and uplink.up_mbit is not None:
            _shape(namespace, device, uplink.up_mbit)
        return ours

    def _wire(self, number: int, far_end: str, delay_ms: float) -> None:
        """Lay the wire of a link, or two with a program between them that takes its time.

        The program has a namespace of its own: in the core's, its end would answer for the core's addresses.
        """
        if not delay_ms:
            self._namespace.ip(f"link add place{number} type veth peer {far_end}")
            return
        line = self._namespaces.create(f"line{number}")
        self._namespace.ip(f"link add place{number} type veth peer name near netns {line.pid}")
        line.ip(
            f"link add far type veth peer {far_end}",
            *(f"link set {end} addrgenmode none up" for end in ("near", "far")),
        )
        program = (sys.executable, "-I", "-S", str(_LINE), "near", "far", str(delay_ms))
        self._namespaces.start(line.command(*program))

    def addresses(self, count: int = 1) -> list[tuple[str, str]]:
        """Return public IPv4 and IPv6 addresses that nobody has yet, all of one network of their own."""
        number = next(self._numbers)
        if number > _NETWORKS_MAX:
            raise LaboratoryError(f"all {_NETWORKS_MAX} public networks are taken; build fewer places")
        return [(f"26.0.{number}.{host}", f"2d00:0:{number:x}::{host:x}") for host in range(1, count + 1)]

    def route(self, address: str, device: str, via: str = "") -> None:
        """Send what is for *address* to a link, to its owner there or to the router *via*."""
        hop = f"via {via} onlink" if via else ""
        self._namespace.ip(f"route add {address} dev {device} {hop}")

    def cut(self, device: str, cut: bool) -> None:
        """Let nothing through a link any more, or everything again; those at its ends notice nothing."""
        if cut:
            self._cut[device] = None
        else:
            self._cut.pop(device, None)
        self._change_weather()

    def lose(self, device: str, percent: int) -> None:
        """Lose so many packets in a hundred on a link, in each direction."""
        self._losses[device] = percent
        self._change_weather()

    def _change_weather(self) -> None:
        losses = [(device, percent) for device, percent in self._losses.items() if percent]
        self._namespace.rules(weather_rules(list(self._cut), losses))


ROUTING = {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}
"""The settings of a router."""


def uplink_lines(device: str, *addresses: str) -> list[str]:
    """Return what ``ip`` needs at the far end of a link: its public addresses, and the way to the core."""
    lines = []
    for address in addresses:
        bits = "128 nodad" if ":" in address else "32"
        lines.append(f"address add {address}/{bits.partition(' ')[0]} dev {device} {bits.partition(' ')[2]}")
    lines.append(f"link set {device} up")
    for version, gateway in ((4, GATEWAY_IPV4), (6, GATEWAY_IPV6)):
        if any((":" in address) == (version == 6) for address in addresses):
            lines.append(f"route add default via {gateway} dev {device} onlink")
    return lines


def harden(namespace: Namespace) -> None:
    """Give a namespace the same settings on every machine, before it has a device."""
    namespace.settings(
        {
            f"{family}/conf/{which}/{name}": value
            for which in ("all", "default")
            for family, name, value in (
                ("ipv4", "rp_filter", 0),
                ("ipv4", "send_redirects", 0),
                ("ipv4", "accept_redirects", 0),
                ("ipv6", "accept_redirects", 0),
                ("ipv6", "accept_dad", 0),
                ("ipv6", "accept_ra", 0),
            )
        }
    )


def _shape(namespace: Namespace, device: str, mbit: float) -> None:
    burst = max(3_200, int(mbit * 1e6 / 8 / 250))
    rate = f"{int(mbit * 1000)}kbit"
    tbf = ("root", "tbf", "rate", rate, "burst", str(burst), "latency", f"{_QUEUE_MS}ms")
    namespace.run("tc", "qdisc", "add", "dev", device, *tbf)
