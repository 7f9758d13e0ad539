"""A device behind a NAT, a network and a gateway, in simulated time: what RFC 4787 says, and nothing of ours.

The NAT keeps, for each inside endpoint, whom it has sent to, and maps and filters by that (RFC 4787,
sections 4.1 and 5). Only the gateway's answers and the device's probe are the real ones.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pdist.core.nat import PROBE_SOCKETS, NatProbe, ProbeSocket
from p2pdist.core.stun import StunResponder
from p2pdist.wire.nat import Dependence, NatBehaviour
from p2pdist.wire.stun import Endpoint

OUTSIDE = "203.0.113.9"
ONE_WAY_S = 0.03


@dataclass
class Nat:
    """A NAT, or with *translates* off a stateful firewall."""

    mapping: Dependence = "endpoint-independent"
    filtering: Dependence = "endpoint-independent"
    hairpins: bool = False
    translates: bool = True
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    _mapped: dict[tuple[Endpoint, object], Endpoint] = field(default_factory=dict)
    _inside: dict[Endpoint, Endpoint] = field(default_factory=dict)
    _sent_to: dict[Endpoint, set[Endpoint]] = field(default_factory=lambda: defaultdict(set))

    def outbound(self, inside: Endpoint, to: Endpoint) -> Endpoint:
        """Return the outside endpoint that a packet gets."""
        self._sent_to[inside].add(to)
        depends_on = {"endpoint-independent": None, "address-dependent": to.host}.get(self.mapping, to)
        outside = self._mapped.get((inside, depends_on))
        if outside is None:
            outside = Endpoint(OUTSIDE, self._free_port()) if self.translates else inside
            self._mapped[inside, depends_on] = outside
            self._inside[outside] = inside
        return outside

    def inbound(self, outside: Endpoint, source: Endpoint) -> Endpoint | None:
        """Return the inside endpoint that a packet to *outside* reaches; None: it is dropped."""
        inside = self._inside.get(outside)
        if inside is None:
            return None
        sent_to = self._sent_to[inside]
        passes = {
            "endpoint-independent": True,
            "address-dependent": source.host in {each.host for each in sent_to},
            "address-and-port-dependent": source in sent_to,
        }[self.filtering]
        return inside if passes else None

    def _free_port(self) -> int:
        used = {each.port for each in self._inside}
        return next(port for port in iter(lambda: self.rng.randint(1024, 65535), 0) if port not in used)


@dataclass
class Network:
    """Runs one probe through a NAT to a gateway.

    Args:
        nat: What stands before the device.
        hosts: The gateway's addresses.
        lost: Whether the packet with this number, counted from 0, is lost.
        copies: How many copies of a packet arrive, each a little later.
        respond: What answers instead of the real responder: (data, source, local) to (data, origin) pairs.
    """

    nat: Nat
    hosts: list[str] = field(default_factory=lambda: ["198.51.100.1", "198.51.100.2"])
    lost: Callable[[int], bool] = lambda number: False
    copies: Callable[[int], int] = lambda number: 1
    respond: Callable[[bytes, Endpoint, Endpoint], list[tuple[bytes, Endpoint]]] | None = None
    now: float = 1000.0
    sent: int = 0

    def probe(self) -> NatBehaviour:
        """Run to the end and return what was found out."""
        self._responder = StunResponder(self.hosts, (3478, 3479), key=bytes(16), now=self.now)
        self._arrivals: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._sockets: dict[Endpoint, ProbeSocket] = {
            Endpoint("10.0.0.5", 40_000 + number): name for number, name in enumerate(PROBE_SOCKETS)
        }
        local = {name: endpoint for endpoint, name in self._sockets.items()}
        rng = random.Random(1)
        self._probe = NatProbe(self._responder.endpoints[0], local, random_bytes=rng.randbytes, now=self.now)
        while (behaviour := self._probe.behaviour) is None:
            while (command := self._probe.poll_command()) is not None:
                self.sent += 1
                self._leave(local[command.socket], command.to, command.data)
            self._step()
        return behaviour

    def _step(self) -> None:
        deadline = self._probe.next_deadline()
        assert deadline is not None
        if self._arrivals and self._arrivals[0][0] <= deadline:
            self.now, _, arrive = heapq.heappop(self._arrivals)
            arrive()
        else:
            self.now = deadline
            self._probe.handle_tick(self.now)

    def _later(self, arrive: Callable[[], None]) -> None:
        number = next(self._serial)
        if self.lost(number):
            return
        for copy in range(self.copies(number)):
            heapq.heappush(self._arrivals, (self.now + ONE_WAY_S * (1 + copy), next(self._serial), arrive))

    def _leave(self, inside: Endpoint, to: Endpoint, data: bytes) -> None:
        source = self.nat.outbound(inside, to)
        if to in self._responder.endpoints:
            self._later(lambda: self._at_gateway(data, source, to))
        elif to.host == OUTSIDE and self.nat.hairpins:
            self._later(lambda: self._at_nat(data, to, source))

    def _at_gateway(self, data: bytes, source: Endpoint, local: Endpoint) -> None:
        if self.respond is not None:
            replies = self.respond(data, source, local)
        else:
            reply = self._responder.handle_datagram(data, source.host, source.port, local, self.now)
            replies = [] if reply is None else [(reply.data, reply.origin)]
        for answer, origin in replies:
            self._later(lambda answer=answer, origin=origin: self._at_nat(answer, source, origin))  # type: ignore[misc]

    def _at_nat(self, data: bytes, outside: Endpoint, source: Endpoint) -> None:
        inside = self.nat.inbound(outside, source)
        if inside is not None:
            self._probe.handle_datagram(self._sockets[inside], data, source, self.now)
