"""Envelopes on their way through a fleet, in simulated time: all programs' cores, and a network that fails.

Devices attach to gateways or to the admin server, and move. Links delay, break in the middle, and are cut for
a while without anybody being told. Every program crashes and comes back with what was on its disk. One of the
gateways lies: it drops what it gave receipts for, repeats envelopes, and brings old ones out again.

What is real: outbox, exchanges, receipts, mailbox, routes, reach, posts, replay windows and unconfirmed
reports. What is simulated: links, disks, clocks, and sealing (nobody alters anything here).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from p2pdist.core import mailbox as core
from p2pdist.core.mailbox import Letter
from p2pdist.core.outbox import Outbox
from p2pdist.core.receipts import Dispatch, Receipts
from p2pdist.core.routes import Routes
from p2pdist.core.unconfirmed import Unconfirmed
from p2pdist.errors import P2PDistError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.node.post import OwnPost
from p2pdist.server.control.reach import Reach
from p2pdist.trust.sealing import ReplayWindow
from p2pdist.wire.envelope import Envelope, Opened
from p2pdist.wire.frames import AnyFrame, Arrived, Attached, Routed, Taken
from p2pdist.wire.messages import Refusal

SERVER = NodeId("s" * 32)
GATEWAYS = [NodeId(letter * 32) for letter in "gh"]
LIAR = NodeId("l" * 32)
DEVICES = [NodeId(letter * 32) for letter in "abcd"]

EXPIRES = 2**40
HEARTBEAT_S = 60.0
STORE_S = 0.25


@dataclass(frozen=True)
class Heartbeat:
    revision: int
    opened: Opened


@dataclass(frozen=True)
class State:
    revision: int


@dataclass(frozen=True)
class Invite:
    number: int


@dataclass(frozen=True)
class Confirmed:
    ids: tuple[str, ...]


class World:
    """Time, what happens in it, and what envelopes hold."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.links: list[Link] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._contents: dict[bytes, Any] = {}
        self.server = Server(self)
        self.gateways: dict[NodeId, Gateway] = {
            node: (Liar if node == LIAR else Gateway)(self, node) for node in [*GATEWAYS, LIAR]
        }
        self.devices = {node: Device(self, node) for node in DEVICES}
        for program in self.programs:
            program.start()

    @property
    def programs(self) -> list[Program]:
        return [self.server, *self.gateways.values(), *self.devices.values()]

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, action))

    def run_until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = end

    def envelope(self, sender: NodeId, recipient: NodeId, counter: int, content: Any) -> Envelope:
        box = len(self._contents).to_bytes(40, "big")
        self._contents[box] = content
        return Envelope(sender=sender, recipient=recipient, counter=counter, expires=EXPIRES, box=box)

    def content(self, envelope: Envelope) -> Any:
        return self._contents[envelope.box]

    def program(self, node: NodeId) -> Program:
        return next(each for each in self.programs if each.node == node)


class Program:
    """Something that crashes and comes back. ``life`` tells its runs apart."""

    def __init__(self, world: World, node: NodeId) -> None:
        self.world, self.node = world, node
        self.up = False
        self.life = 0

    def start(self) -> None:
        self.up = True
        self.life += 1
        self.begin()

    def crash(self) -> None:
        self.up = False
        self.life += 1
        for link in [link for link in self.world.links if self.node in (link.lower, link.upper)]:
            link.end()

    def soon(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later, if this run is still going on."""
        life = self.life
        self.world.later(seconds, lambda: action() if self.life == life else None)

    def begin(self) -> None: ...

    def linked_from_below(self, link: Link) -> None: ...

    def frame(self, link: Link, frame: AnyFrame) -> None: ...

    def ended(self, link: Link) -> None: ...


class Side:
    """One end of a link, as what sends on it."""

    def __init__(self, link: Link, to: NodeId) -> None:
        self._link, self._to = link, to

    def send_nowait(self, frame: AnyFrame) -> None:
        if self._link.over:
            raise Unavailable("the link has ended")
        self._link.carry(self._to, frame)


class Link:
    """Keeps the order, takes its time, and loses what is under way when it ends."""

    def __init__(self, world: World, lower: NodeId, upper: NodeId) -> None:
        self.world, self.lower, self.upper = world, lower, upper
        self.over = False
        self.cut = False
        self.at_lower, self.at_upper = Side(self, upper), Side(self, lower)
        self._lives = {node: world.program(node).life for node in (lower, upper)}
        self._free = {lower: 0.0, upper: 0.0}
        world.links.append(self)

    def carry(self, to: NodeId, frame: AnyFrame) -> None:
        at = max(self._free[to], self.world.now + self.world.rng.uniform(0.01, 0.4))
        self._free[to] = at
        self.world.later(at - self.world.now, lambda: self._deliver(to, frame))

    def end(self) -> None:
        """It breaks; each side hears of it in its own time."""
        if not self.over:
            self.over = True
            self.world.links.remove(self)
            for node in (self.lower, self.upper):
                self.world.later(self.world.rng.uniform(0, 3), lambda node=node: self._tell_end(node))

    def cut_off(self) -> None:
        """Nothing gets through any more; the kernels give up after some seconds."""
        self.cut = True
        self.world.later(7.0, self.end)

    def _deliver(self, to: NodeId, frame: AnyFrame) -> None:
        if self.over or self.cut:
            return
        try:
            self.world.program(to).frame(self, frame)
        except P2PDistError:
            self.end()

    def _tell_end(self, node: NodeId) -> None:
        program = self.world.program(node)
        if program.life == self._lives[node]:
            program.ended(self)


def open_link(world: World, lower: Program, upper: NodeId) -> Link | None:
    above = world.program(upper)
    if not above.up:
        return None
    link = Link(world, lower.node, upper)
    world.later(0.2, lambda: above.linked_from_below(link) if not link.over else None)
    return link


class Device(Program):
    """On its disk: its counter, what it has opened, its state, and what is not confirmed."""

    def __init__(self, world: World, node: NodeId) -> None:
        super().__init__(world, node)
        self.counter = 0
        self.window = ReplayWindow()
        self.revision = 0
        self.records: dict[str, bytes] = {}
        self.said: list[str] = []
        self.invited: list[int] = []
        self.revisions: list[int] = []

    def begin(self) -> None:
        self.post = OwnPost()
        self.link: Link | None = None
        self.unconfirmed = Unconfirmed(self.records)
        self.soon(self.world.rng.uniform(0, 1), self.dial)
        self.soon(1.0, self.repeat)
        self.soon(HEARTBEAT_S, self.beat)

    def dial(self) -> None:
        if self.link is not None:
            return
        upper = self.world.rng.choice([SERVER, LIAR, *GATEWAYS, *GATEWAYS])
        self.link = open_link(self.world, self, upper)
        if self.link is None:
            self.soon(1.0, self.dial)
            return
        self.counter += 1
        self.link.at_lower.send_nowait(Arrived(stamp=self.counter))
        self.post.linked(upper, self.link.at_lower)
        self.unconfirmed.resend(now_s=self.world.now)
        self.heartbeat()
        self.repeat_now()

    def move(self) -> None:
        if self.link is not None:
            self.link.end()
            self.ended(self.link)

    def ended(self, link: Link) -> None:
        if link is self.link:
            self.link = None
            self.post.unlinked()
            self.soon(self.world.rng.uniform(0.1, 2), self.dial)

    def say(self, name: str) -> None:
        """The application has something to report: it counts from now on, whatever happens."""
        refusal = Refusal(id=name, kind="stranger", subject=name, reason="", at=0)
        if self.up and self.unconfirmed.add_refusal(refusal, now_s=self.world.now):
            self.save()
            self.said.append(name)
            self.repeat_now()

    def save(self) -> None:
        for key, data in self.unconfirmed.take_changes().items():
            if data is None:
                self.records.pop(key, None)
            else:
                self.records[key] = data

    def beat(self) -> None:
        self.heartbeat()
        self.soon(HEARTBEAT_S, self.beat)

    def heartbeat(self) -> None:
        self.send(Heartbeat(self.revision, self.window.opened()))

    def repeat(self) -> None:
        self.repeat_now()
        self.soon(5.0, self.repeat)

    def repeat_now(self) -> None:
        if self.link is not None:
            for message in self.unconfirmed.take_due(now_s=self.world.now):
                self.send(message)

    def send(self, content: Any) -> None:
        if self.link is None:
            return
        self.counter += 1
        try:
            self.post.send(self.world.envelope(self.node, SERVER, self.counter, content))
        except Unavailable:
            return

    def frame(self, link: Link, frame: AnyFrame) -> None:
        if link is not self.link:
            return
        match frame:
            case Routed(envelope=envelope):
                if self.window.is_new(envelope.counter):
                    self.act(self.world.content(envelope))
                    self.window.accept(envelope.counter)
                self.post.settle()
            case Taken():
                self.post.taken(frame)

    def act(self, content: Any) -> None:
        match content:
            case State(revision=revision):
                if revision >= self.revision:
                    self.revision = revision
                    self.revisions.append(revision)
                    self.heartbeat()
            case Invite(number=number):
                self.invited.append(number)
            case Confirmed(ids=ids):
                self.unconfirmed.confirm(ids)
                self.save()


@dataclass
class Hop:
    link: Link
    outlet: Side
    node: NodeId
    receipts: Receipts = field(default_factory=Receipts)
    dispatch: Dispatch = field(default_factory=Dispatch)


class Gateway(Program):
    """On its disk: the envelopes that it has given receipts for."""

    def __init__(self, world: World, node: NodeId) -> None:
        super().__init__(world, node)
        self.disk: dict[int, tuple[Letter, Envelope]] = {}

    def begin(self) -> None:
        letters = [
            Letter(
                number=number,
                sender=letter.sender,
                recipient=letter.recipient,
                counter=letter.counter,
                expires=letter.expires,
                size=letter.size,
                via=letter.via,
                stored=True,
            )
            for number, (letter, _) in sorted(self.disk.items())
        ]
        self.box = core.Mailbox(letters)
        self.envelopes = {number: envelope for number, (_, envelope) in self.disk.items()}
        self.routes = Routes(self.node)
        self.hops: dict[NodeId, Hop] = {}
        self.debts: dict[int, list[tuple[Hop, int]]] = {}
        self.above: Hop | None = None
        self.soon(0.1, self.dial)
        self.soon(5.0, self.look_around)

    def dial(self) -> None:
        link = open_link(self.world, self, SERVER)
        if link is None:
            self.soon(1.0, self.dial)
            return
        self.above = self.hops[SERVER] = Hop(link, link.at_lower, SERVER)
        link.at_lower.send_nowait(Arrived(stamp=self.life))
        for frame in self.routes.whole():
            link.at_lower.send_nowait(frame)
        self.look(SERVER)

    def linked_from_below(self, link: Link) -> None:
        older = self.hops.get(link.lower)
        self.hops[link.lower] = Hop(link, link.at_upper, link.lower)
        if older is not None:
            self.put_back(older)
        self.routes.attached(link.lower, 1)
        self.tell()
        self.look(link.lower)

    def ended(self, link: Link) -> None:
        node = link.upper if link.lower == self.node else link.lower
        hop = self.hops.get(node)
        if hop is None or hop.link is not link:
            return
        del self.hops[node]
        if hop is self.above:
            self.above = None
            self.soon(1.0, self.dial)
        else:
            self.routes.detached(node)
            self.tell()
        self.put_back(hop)

    def put_back(self, hop: Hop) -> None:
        """What was under way on a link that has ended waits again."""
        returned = [self.box.returned(number) for number in hop.dispatch.under_way()]
        for recipient in dict.fromkeys(letter.recipient for letter in returned if letter is not None):
            self.look(recipient)

    def frame(self, link: Link, frame: AnyFrame) -> None:
        node = link.upper if link.lower == self.node else link.lower
        hop = self.hops.get(node)
        if hop is None or hop.link is not link:
            return
        match frame:
            case Arrived(stamp=stamp):
                self.routes.attached(node, stamp)
                self.tell()
            case Routed(envelope=envelope):
                self.accept(hop, hop.receipts.arrived(), envelope)
            case Taken():
                theirs, ours = hop.dispatch.taken(frame)
                for number in theirs:
                    self.finish(number)
                for number in ours:
                    self.box.returned(number)
                for recipient in self.box.recipients():
                    self.look(recipient)

    def tell(self) -> None:
        for node in self.routes.moved():
            self.look(node)
        if self.above is not None:
            for frame in self.routes.poll():
                self.above.outlet.send_nowait(frame) if not self.above.link.over else None

    def accept(self, hop: Hop, arrival: int, envelope: Envelope) -> None:
        known = len(self.box)
        try:
            letter = self.box.accept(
                NodeId(envelope.sender),
                NodeId(envelope.recipient),
                counter=envelope.counter,
                expires=envelope.expires,
                size=len(envelope.box),
                via=hop.node,
            )
        except Unavailable:
            self.settle(hop, arrival, refused=True)
            return
        if len(self.box) > known:
            self.envelopes[letter.number] = envelope
            self.soon(self.world.rng.uniform(0.05, STORE_S), lambda: self.store(letter))
            self.look(letter.recipient)
        if letter.stored or self.box.get(letter.number) is None:
            self.settle(hop, arrival)
        else:
            self.debts.setdefault(letter.number, []).append((hop, arrival))

    def store(self, letter: Letter) -> None:
        if self.box.get(letter.number) is letter:
            letter.stored = True
            self.disk[letter.number] = letter, self.envelopes[letter.number]
            self.pay(letter.number)

    def finish(self, number: int) -> None:
        self.box.remove(number)
        self.envelopes.pop(number, None)
        self.disk.pop(number, None)
        self.pay(number)

    def pay(self, number: int) -> None:
        for hop, arrival in self.debts.pop(number, ()):
            self.settle(hop, arrival)

    def settle(self, hop: Hop, arrival: int, *, refused: bool = False) -> None:
        hop.receipts.settle(arrival, refused=refused)
        receipt = hop.receipts.due()
        if receipt is not None and not hop.link.over:
            hop.outlet.send_nowait(receipt)
            hop.receipts.told(receipt)

    def look(self, recipient: NodeId) -> None:
        via = SERVER if recipient == SERVER else self.routes.next_hop(recipient)
        hop = self.hops.get(via) if via is not None else None
        while hop is not None and not hop.link.over and (letter := self.box.peek(recipient)) is not None:
            if not hop.dispatch.has_room(letter.size):
                return
            hop.dispatch.sent(letter.number, letter.size)
            self.box.sent(letter)
            self.pass_on(hop, self.envelopes[letter.number])

    def pass_on(self, hop: Hop, envelope: Envelope) -> None:
        hop.outlet.send_nowait(Routed(envelope=envelope))

    def look_around(self) -> None:
        for recipient in self.box.recipients():
            self.look(recipient)
        self.soon(5.0, self.look_around)


class Liar(Gateway):
    """Gives receipts for everything, and passes on what it likes, when it likes, as often as it likes."""

    honest = False

    def begin(self) -> None:
        self.old: list[Envelope] = []
        super().begin()

    def accept(self, hop: Hop, arrival: int, envelope: Envelope) -> None:
        if self.honest:
            super().accept(hop, arrival, envelope)
            return
        self.settle(hop, arrival)
        self.old.append(envelope)
        rng = self.world.rng
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            self.soon(rng.choice([0.0, 0.0, rng.uniform(0, 30)]), lambda: self.let_go(envelope))
        if rng.random() < 0.3:
            self.let_go(rng.choice(self.old))

    def let_go(self, envelope: Envelope) -> None:
        to = NodeId(envelope.recipient)
        hop = self.hops.get(to)
        if hop is not None and not hop.link.over and hop.dispatch.has_room(40):
            hop.dispatch.sent(-1, 40)
            self.pass_on(hop, envelope)

    def finish(self, number: int) -> None:
        if number >= 0:
            super().finish(number)


class Server(Program):
    """On its disk: what devices reported, what was seen of their counters, and what they should have."""

    def __init__(self, world: World) -> None:
        super().__init__(world, SERVER)
        self.stored: dict[str, int] = {}
        self.windows: dict[NodeId, bytes] = {}
        self.reserved = 0
        self.wanted = dict.fromkeys(DEVICES, 1)
        self.accepted: dict[NodeId, list[int]] = {node: [] for node in DEVICES}
        """Invitations that were sent on their way by this run: these must arrive."""

    def begin(self) -> None:
        self.links: dict[NodeId, Any] = {}
        self.outbox = Outbox()
        self.reach = Reach(SERVER, self.links)
        self.exchanges: dict[NodeId, tuple[Link, Any]] = {}
        self.live = {node: self.restored(node) for node in DEVICES}
        self.base = self.reserved
        self.reserved += 65_536
        self.counters = dict.fromkeys(DEVICES, self.base)
        self.accepted = {node: [] for node in DEVICES}
        self.soon(5.0, self.look)

    def look(self) -> None:
        for _, exchange in self.exchanges.values():
            exchange.look()
        self.soon(5.0, self.look)

    def restored(self, node: NodeId) -> ReplayWindow:
        window = ReplayWindow()
        if node in self.windows:
            window.restore(self.windows[node])
        return window

    def linked_from_below(self, link: Link) -> None:
        self.links[link.lower] = link.at_upper
        exchange = self.reach.linked(link.lower, link.at_upper)  # type: ignore[arg-type]  # all that is used
        self.exchanges[link.lower] = link, exchange

    def ended(self, link: Link) -> None:
        if self.exchanges.get(link.lower, (None,))[0] is link:
            del self.links[link.lower], self.exchanges[link.lower]
            self.reach.gone(link.lower)
            self.follow()

    def frame(self, link: Link, frame: AnyFrame) -> None:
        known, exchange = self.exchanges.get(link.lower, (None, None))
        if known is not link or exchange is None:
            return
        match frame:
            case Arrived(stamp=stamp):
                self.reach.arrived(link.lower, stamp)
                self.follow()
            case Attached():
                self.reach.heard(link.lower, frame)
                self.follow()
            case Taken():
                exchange.taken(frame)
            case Routed(envelope=envelope):
                number, node = exchange.arrived(), NodeId(envelope.sender)
                if self.live[node].accept(envelope.counter):
                    if envelope.counter >= self.live[node].highest:
                        self.reach.proved(node, link.lower)
                    content, window = self.world.content(envelope), self.live[node].snapshot()
                    self.soon(0.1, lambda: self.commit(node, content, window, exchange, number))
                else:
                    self.soon(0.1, lambda: exchange.settle(number))

    def commit(self, node: NodeId, content: Any, window: bytes, exchange: Any, number: int) -> None:
        """It is on the disk; and what comes of it."""
        self.windows[node] = window
        match content:
            case Refusal(id=name):
                self.stored[name] = self.stored.get(name, 0) + 1
                self.say(node, Confirmed((name,)), "")
            case Heartbeat(revision=revision, opened=opened):
                self.outbox.opened(node, opened)
                if revision < self.wanted[node]:
                    self.say(node, State(self.wanted[node]), "state")
                self.again(node)
        try:
            exchange.settle(number)
        except Unavailable:
            return

    def follow(self) -> None:
        for node in self.reach.moved():
            if node in self.wanted and self.reach.neighbour(node) is not None:
                self.again(node)

    def order(self, node: NodeId) -> None:
        self.wanted[node] += 1
        self.say(node, State(self.wanted[node]), "state")

    def invite(self, node: NodeId, number: int) -> None:
        if self.up and self.say(node, Invite(number), ""):
            self.accepted[node].append(number)

    def say(self, node: NodeId, content: Any, subject: str) -> bool:
        self.counters[node] += 1
        envelope = self.world.envelope(SERVER, node, self.counters[node], content)
        try:
            self.outbox.keep(envelope, subject=subject, way=self.reach.way(node), now=self.world.now)
        except Unavailable:
            return self.reach.send(envelope) if subject else False
        if not self.reach.send(envelope):
            self.outbox.drop(envelope)
            return False
        return True

    def again(self, node: NodeId) -> None:
        way, now = self.reach.way(node), self.world.now
        for envelope in self.outbox.due(node, way=way, now=now, unix=0):
            if way is None or not self.reach.send(envelope):
                return
            self.outbox.sent_again(envelope, way=way, now=now)
