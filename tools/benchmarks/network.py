"""Sites behind slow links, as network namespaces on one machine.

::

    origin --- core --- site 1 --- bridge --- point, devices
                  \\---- site 2 --- bridge --- point, devices

The origin's uplink and each site's two directions are shaped by a token bucket where the packets leave
(so the queue stands before the slow link, as in a real modem); every host of a site has the LAN's rate.
Only the WAN links segment packets to their real size, so that their counters and their rates include
the headers of every packet. There is no extra delay. TCP's congestion control is cubic everywhere.
The origin and the points have the kernel's settings that ``seeds/sysctl.d`` recommends for them, whichever
system is measured.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

WAN_QUEUE_MS = 100
LAN_QUEUE_MS = 20
SYSCTL = Path(__file__).parents[2] / "seeds/sysctl.d/60-p2pdist.conf"
"""What the admin server's and the points' machines set."""


def run(*command: str) -> str:
    """Run a command, and return its output; raise with what it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A namespace with one address."""

    namespace: str
    address: str

    def command(self, *command: str) -> list[str]:
        """Return the command line that runs *command* in this host."""
        return ["ip", "netns", "exec", self.namespace, *command]


@dataclass(frozen=True)
class Site:
    """A site: a host for a distribution point or a cache, and its devices."""

    number: int
    point: Host
    devices: tuple[Host, ...]


@dataclass(frozen=True)
class Rates:
    """In Mbit/s."""

    origin_up: float
    site_down: float
    site_up: float
    lan: float


@dataclass(frozen=True)
class WanBytes:
    """What crossed the WAN links, with all headers."""

    origin_out: int
    site_in: tuple[int, ...]
    site_out: tuple[int, ...]

    def since(self, before: WanBytes) -> WanBytes:
        """Return the difference."""
        return WanBytes(
            self.origin_out - before.origin_out,
            tuple(a - b for a, b in zip(self.site_in, before.site_in, strict=True)),
            tuple(a - b for a, b in zip(self.site_out, before.site_out, strict=True)),
        )


@dataclass
class Network:
    """The whole network; a context manager, which leaves nothing behind."""

    sites_wanted: int
    devices_per_site: int
    rates: Rates
    origin: Host = field(init=False)
    sites: tuple[Site, ...] = field(init=False, default=())
    _namespaces: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._prefix = f"p2pb{os.getpid()}"
        self._core = f"{self._prefix}-core"
        self.origin = Host(f"{self._prefix}-origin", "10.0.0.2")

    def __enter__(self) -> Network:
        try:
            self._build()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for namespace in reversed(self._namespaces):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)
        self._namespaces.clear()

    def wan_bytes(self) -> WanBytes:
        """Read the counters of the WAN links, at the core."""
        ends = ["origin", *(f"site{site.number}" for site in self.sites)]
        names = [f"/sys/class/net/{end}/statistics/{way}_bytes" for end in ends for way in ("rx", "tx")]
        counts = [int(line) for line in run("ip", "netns", "exec", self._core, "cat", *names).split()]
        received, sent = counts[0::2], counts[1::2]
        return WanBytes(origin_out=received[0], site_in=tuple(sent[1:]), site_out=tuple(received[1:]))

    def _build(self) -> None:
        self._namespace(self._core, forward=True)
        self._namespace(self.origin.namespace)
        _in(self.origin.namespace, "sysctl", "-qp", str(SYSCTL))
        self._wan(self.origin.namespace, "origin", 0, up=self.rates.origin_up, down=1000)
        self.sites = tuple(self._site(number) for number in range(1, self.sites_wanted + 1))

    def _site(self, number: int) -> Site:
        router = f"{self._prefix}-s{number}"
        self._namespace(router, forward=True)
        self._wan(router, f"site{number}", number, up=self.rates.site_up, down=self.rates.site_down)
        _in(self._core, "ip", "route", "add", f"10.{number}.0.0/24", "via", f"10.0.{number}.2")
        _in(router, "ip", "link", "add", "lan", "type", "bridge")
        _in(router, "ip", "address", "add", f"10.{number}.0.1/24", "dev", "lan")
        _in(router, "ip", "link", "set", "lan", "up")
        hosts = [self._host(router, number, index) for index in range(self.devices_per_site + 1)]
        _in(hosts[0].namespace, "sysctl", "-qp", str(SYSCTL))
        return Site(number=number, point=hosts[0], devices=tuple(hosts[1:]))

    def _host(self, router: str, site: int, index: int) -> Host:
        host = Host(f"{self._prefix}-s{site}h{index}", f"10.{site}.0.{10 + index}")
        port = f"host{index}"
        self._namespace(host.namespace)
        link = ("type", "veth", "peer", "name", "lan", "netns", host.namespace)
        _in(router, "ip", "link", "add", port, *link)
        _in(router, "ip", "link", "set", port, "master", "lan", "up")
        _in(host.namespace, "ip", "address", "add", f"{host.address}/24", "dev", "lan")
        _in(host.namespace, "ip", "link", "set", "lan", "up")
        _in(host.namespace, "ip", "route", "add", "default", "via", f"10.{site}.0.1")
        for namespace, device in ((router, port), (host.namespace, "lan")):
            _shape(namespace, device, self.rates.lan, LAN_QUEUE_MS)
        return host

    def _wan(self, namespace: str, end: str, number: int, *, up: float, down: float) -> None:
        """Connect a namespace (10.0.N.2) to the core (10.0.N.1)."""
        _in(self._core, "ip", "link", "add", end, "type", "veth", "peer", "name", "wan", "netns", namespace)
        for where, device, address, rate in (
            (self._core, end, f"10.0.{number}.1/30", down),
            (namespace, "wan", f"10.0.{number}.2/30", up),
        ):
            _in(where, "ip", "address", "add", address, "dev", device)
            _in(where, "ip", "link", "set", device, "gso_max_segs", "1", "up")
            _shape(where, device, rate, WAN_QUEUE_MS)
        _in(namespace, "ip", "route", "add", "default", "via", f"10.0.{number}.1")

    def _namespace(self, name: str, *, forward: bool = False) -> None:
        run("ip", "netns", "add", name)
        self._namespaces.append(name)
        _in(name, "ip", "link", "set", "lo", "up")
        if forward:
            _in(name, "sysctl", "-qw", "net.ipv4.ip_forward=1")


def _in(namespace: str, *command: str) -> str:
    if command[:3] == ("ip", "route", "add"):
        command = (*command, "congctl", "cubic")  # the usual one, whatever this machine has
    if command[0] in ("ip", "tc"):
        return run(command[0], "-n", namespace, *command[1:])
    return run("ip", "netns", "exec", namespace, *command)


def _shape(namespace: str, device: str, mbit: float, queue_ms: int) -> None:
    burst = max(3_200, int(mbit * 1e6 / 8 / 250))
    parameters: Sequence[str] = ("rate", f"{int(mbit * 1000)}kbit", "burst", str(burst))
    _in(
        namespace, "tc", "qdisc", "add", "dev", device, "root", "tbf", *parameters, "latency", f"{queue_ms}ms"
    )
