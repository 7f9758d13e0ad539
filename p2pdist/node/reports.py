"""What a member says about itself, unasked: to its neighbour, and to the admin server."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from math import inf
from pathlib import Path

import trio

import p2pdist
from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.ids import InfoHash
from p2pdist.install.platform import detect_platform
from p2pdist.net.interfaces import read_interfaces
from p2pdist.node.content import Content
from p2pdist.node.home import Home
from p2pdist.node.metadata import Metadata
from p2pdist.node.uplink import Uplink
from p2pdist.swarm.session import Swarm
from p2pdist.trust.certificates import NodeCertificate, make_request
from p2pdist.wire.discovery import Interface
from p2pdist.wire.envelope import Opened
from p2pdist.wire.frames import Announce, Role
from p2pdist.wire.messages import ContentReport, DesiredState, FromDevice, Heartbeat, RenewalRequest
from p2pdist.wire.wakes import WakePlace

_ANNOUNCE_EVERY_S = 30.0
_CALL_EVERY_S = 4.0  # where others have to dial again when a connection broke
_GAP_S = 0.2
_CONTENT_EVERY_S = 2.0
_HEARTBEAT_S = 300
_RENEW_AGAIN_S = 20.0
_RENEW_LEAST_S = 60.0
_CONFIRM_AGAIN_S = 15.0

Send = Callable[[FromDevice], Awaitable[bool]]


class Bell:
    """Something is due: rung from anywhere, waited for by one task; several rings count as one."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Say that it is due."""
        self._rung.set()

    async def wait(self, at_most_s: float = inf) -> bool:
        """Wait until it is rung, or until so many seconds have passed; return whether it was rung."""
        with trio.move_on_after(max(0.0, at_most_s)):
            await self._rung.wait()
        rung = self._rung.is_set()
        self._rung = trio.Event()
        return rung


class Announcer:
    """Tells the neighbours what this node takes part in: on every change, and now and then.

    Args:
        below: Tells the neighbours that this node carries, if it carries any.
    """

    def __init__(
        self,
        role: Role,
        swarm: Swarm,
        content: Content,
        uplink: Uplink,
        below: Callable[[Announce], None],
    ) -> None:
        self.due = Bell()
        self._role: Role = role
        self._swarm = swarm
        self._content = content
        self._uplink = uplink
        self._below = below

    async def run(self) -> None:
        """Announce until cancelled."""
        while True:
            calling = self._content.waits_for_calls()
            await self.due.wait(_CALL_EVERY_S if calling else _ANNOUNCE_EVERY_S)
            announce = Announce(
                role=self._role,
                port=self._swarm.port,
                artifacts=self._content.presences(),
                endpoints=list(self._swarm.endpoints),
            )
            self._below(announce)
            if self._uplink.link is not None:
                try:
                    await self._uplink.send(announce)
                except Unavailable:
                    continue  # the next link announces again
            await trio.sleep(_GAP_S)


class ContentReporter:
    """Tells the admin server where content came from and went to, whenever that has changed."""

    def __init__(self, content: Content, uplink: Uplink, send: Send) -> None:
        self._content = content
        self._uplink = uplink
        self._send = send
        self._sent: dict[InfoHash, ContentReport] = {}

    def repeat(self) -> None:
        """Report all anew: the last reports may have been lost with the neighbour that took them."""
        self._sent.clear()

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await trio.sleep(_CONTENT_EVERY_S)
            if self._uplink.link is None:
                continue
            wanted = self._content.wanted()
            self._sent = {
                info_hash: report for info_hash, report in self._sent.items() if info_hash in wanted
            }
            for info_hash in wanted:
                report = self._content.report(info_hash)
                news = report is not None and bool(report.sources) and report != self._sent.get(info_hash)
                if report is not None and news and await self._send(report):
                    self._sent[info_hash] = report


class Heart:
    """Tells the admin server what this node is and knows: on every change, and now and then.

    Attributes:
        place: Returns where this node can be woken while it has no link.
        woken: The counter of the wake that it came for last.
        interfaces: Returns this machine's interfaces. Blocking.
    """

    def __init__(
        self,
        home: Home,
        metadata: Metadata,
        *,
        name: str,
        spread: float,
        desired: Callable[[], DesiredState | None],
        installed: Callable[[], Mapping[str, int]],
        opened: Callable[[], Opened],
        send: Send,
    ) -> None:
        self.due = Bell()
        self.place: Callable[[], WakePlace | None] = lambda: None
        self.woken = 0
        self._asked = ""
        self._confirmed = trio.Event()
        self.interfaces: Callable[[], Sequence[Interface]] = read_interfaces
        self._interfaces_said: list[Interface] | None = None
        self._home = home
        self._metadata = metadata
        self._name = name
        self._spread = spread
        self._desired = desired
        self._installed = installed
        self._opened = opened
        self._send = send

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            desired = self._desired()
            every = desired.heartbeat_s if desired is not None else _HEARTBEAT_S
            await self.due.wait(every * (0.9 + 0.1 * self._spread))
            await self.beat()
            await trio.sleep(_GAP_S)

    def linked(self) -> None:
        """There is a new link: say everything over it, soon."""
        self._interfaces_said = None
        self.due.ring()

    async def beat(self) -> None:
        """Say it now."""
        beat = await self._beat()
        if await self._send(beat) and beat.interfaces is not None:
            self._interfaces_said = beat.interfaces

    async def confirm(self) -> None:
        """Return once the admin server has opened a heartbeat that was sent after this call.

        One call at a time.
        """
        self._asked, self._confirmed = secrets.token_hex(8), trio.Event()
        try:
            while not self._confirmed.is_set():
                self.due.ring()
                with trio.move_on_after(_CONFIRM_AGAIN_S):
                    await self._confirmed.wait()
        finally:
            self._asked = ""

    def received(self, ids: Collection[str]) -> None:
        """The admin server has opened what has these ids."""
        if self._asked and self._asked in ids:
            self._confirmed.set()

    async def _beat(self) -> Heartbeat:
        interfaces = list(await trio.to_thread.run_sync(self.interfaces))
        certificate, desired = self._home.certificate, self._desired()
        return Heartbeat(
            revision=desired.revision if desired is not None else 0,
            metadata=dict(self._metadata.versions),
            platform=detect_platform(),
            program=f"p2pdist {p2pdist.__version__}",
            name=self._name,
            certificate_expires=int(certificate.not_after.timestamp()),
            swarms=list(certificate.swarms),
            disk_free_bytes=await trio.to_thread.run_sync(_free_bytes, self._home.root),
            installed=dict(self._installed()),
            opened=self._opened(),
            wake=self.place(),
            woken=self.woken,
            id=self._asked,
            interfaces=interfaces if interfaces != self._interfaces_said else None,
        )


class Renewer:
    """Asks for a new certificate at half life, or when the present one lacks something.

    A life is counted from the moment the certificate came, on the monotonic clock: the device's wall clock
    may be hours off. Only what was left of it before this program started is read from the wall clock.

    Args:
        lacking: Whether the present certificate lacks something that the admin server wants in it.
        least_s: Certificates are renewed no earlier than this for their age, however short they live.
    """

    def __init__(
        self,
        home: Home,
        *,
        spread: float,
        send: Send,
        lacking: Callable[[], bool],
        least_s: float = _RENEW_LEAST_S,
    ) -> None:
        self.due = Bell()
        self._home = home
        self._spread = spread
        self._send = send
        self._lacking = lacking
        self._least_s = least_s
        self._came = Bell()
        self._came_at = 0.0

    def taken(self) -> None:
        """A new certificate is in use."""
        self._came_at = trio.current_time()
        self._came.ring()

    async def run(self) -> None:
        """Renew until cancelled."""
        self._came_at = trio.current_time() - min(max(0.0, self._age()), self._half_life())
        while True:
            await self.due.wait(_RENEW_AGAIN_S if self._needed() else self._until_half_life())
            if self._needed():
                await self._ask()

    async def _ask(self) -> None:
        before = self._came_at
        if not await self._send(RenewalRequest(request=make_request(self._home.key))):
            return  # the next link rings
        with trio.move_on_after(_RENEW_AGAIN_S) as lost:
            while self._came_at == before:
                await self._came.wait(inf)
        if lost.cancelled_caught:
            self.due.ring()

    def _needed(self) -> bool:
        return self._lacking() or self._until_half_life() <= 0

    def _until_half_life(self) -> float:
        return self._came_at + self._half_life() - trio.current_time()

    def _half_life(self) -> float:
        return max(self._least_s, _life_s(self._home.certificate) * (0.45 + 0.1 * self._spread))

    def _age(self) -> float:
        return time.time() - (self._home.certificate.not_after.timestamp() - _life_s(self._home.certificate))


def _life_s(certificate: NodeCertificate) -> float:
    """How long a certificate was to live when it was issued: it begins a little before that."""
    return (certificate.not_after - certificate.not_before).total_seconds() - limits.CLOCK_SKEW_S


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free
