"""What the devices of :mod:`crowd` say on their TLS connections: the fleet's own protocol, or a peer's.

:class:`LinkSpeaker` is a device of the fleet as its gateway sees it, made of the product's own HTTP/2
session, frames, envelopes and receipts, without tasks and disk: it says when it came, announces, asks for
metadata, sends sealed heartbeats, gives receipts, and asks for signs of life as an agent does.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol

import msgspec

from p2pdist import limits
from p2pdist.errors import P2PDistError
from p2pdist.net.events import (
    AnswerStarted,
    BodyEnded,
    BodyReceived,
    PaceSet,
    PingAnswered,
    SessionEnded,
    SessionEvent,
)
from p2pdist.net.exchange import Exchange
from p2pdist.net.framing import PREFIX_BYTES, FrameSplitter, pack_frame, unpack_frame
from p2pdist.net.http2 import Session
from p2pdist.net.tls import PROTOCOL
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.sealing import open_envelope, seal
from p2pdist.wire import codec
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import Announce, AnyFrame, Arrived, MetadataVersions, Routed, Taken
from p2pdist.wire.messages import DesiredState, FromServer, Heartbeat
from p2pdist.wire.requests import BundleRequest

NOTIFICATION, ENVELOPE = "notification", "envelope"
_ANNOUNCE_EVERY_S: Final = 30.0  # as p2pdist.node.reports
_SWARM_PORT: Final = 7602


class Setting(msgspec.Struct, kw_only=True):
    """What every device of a crowd knows.

    ``follow``: whether a device acts on what it hears at once, as an agent does: it fetches new metadata,
    and says in a heartbeat that it has a new state.
    """

    server_public: bytes = b""
    versions: dict[str, int] = {}
    swarms: list[str] = []
    certificate_expires: int = 0
    follow: bool = False

    @classmethod
    def parse(cls, data: Any) -> Setting:
        """Read what stands in an order."""
        return msgspec.convert(data, cls)


class Speaker(Protocol):
    """One side of one connection, without I/O. What each method returns is to be sent.

    Attributes:
        protocol: What is named by ALPN; empty for nothing.
        ready: Whether the other side has taken it in.
        heard: When each kind of thing came first since the attribute was cleared, on the monotonic clock.
        round_trips_s: Of :meth:`ping`, since the list was cleared.
    """

    protocol: ClassVar[str]
    ready: bool
    heard: dict[str, float]
    round_trips_s: list[float]

    def __init__(self, setting: Setting, key: IdentityKey) -> None: ...

    def opened(self) -> bytes:
        """TLS stands."""

    def received(self, data: bytes) -> bytes:
        """Bytes have come. Raises ValueError or P2PDistError when they make no sense."""

    def tick(self, now: float) -> bytes:
        """Some seconds have passed."""

    def ping(self, now: float) -> bytes:
        """Measure a round trip."""


class LinkSpeaker:
    """A device of the fleet; see the module."""

    protocol: ClassVar[str] = PROTOCOL

    def __init__(self, setting: Setting, key: IdentityKey) -> None:
        self._setting = setting
        self._key = key
        self._session = Session(dialler=True)
        self._control = self._session.urgent = self._session.open("/control")
        self._splitter = FrameSplitter()
        self._exchange = Exchange(self)
        self._versions: Mapping[str, int] = setting.versions
        self._state: Envelope | None = None
        self._revision = 0
        self._counter = time.time_ns() // 1_000_000
        self._heard_at = self._asked_at = self._announced_at = self._beaten_at = time.monotonic()
        self._keepalive_s: float = limits.LINK_KEEPALIVE_S
        self._heartbeat_s = 300.0
        self.ready = False
        self.heard: dict[str, float] = {}
        self.round_trips_s: list[float] = []

    def opened(self) -> bytes:
        return self._session.output()

    def received(self, data: bytes) -> bytes:
        self._heard_at = time.monotonic()
        for event in self._session.receive(data):
            self._happened(event)
        return self._session.output()

    def tick(self, now: float) -> bytes:
        self._session.forgive()
        if now - max(self._heard_at, self._asked_at) >= self._keepalive_s:
            self._asked_at = now
            self._session.ping()
        if now - self._announced_at >= _ANNOUNCE_EVERY_S:
            self._announce(now)
        if now - self._beaten_at >= self._heartbeat_s:
            self._beat(now)
        return self._session.output()

    def ping(self, now: float) -> bytes:
        self._asked_at = now
        self._session.ping()
        return self._session.output()

    def send_nowait(self, frame: AnyFrame) -> None:
        """See :class:`p2pdist.net.exchange.Outlet`."""
        self._session.send(self._control, pack_frame(frame))

    def _happened(self, event: SessionEvent) -> None:
        match event:
            case AnswerStarted(stream=self._control, status=200):
                self._attached()
            case AnswerStarted(stream=self._control, status=status):
                raise ValueError(f"the link was refused with {status}")
            case BodyReceived(stream=stream, data=data) if stream == self._control:
                for packed in self._splitter.feed(data):
                    self._session.consumed(stream, PREFIX_BYTES + len(packed))
                    self._take(unpack_frame(packed))
            case BodyReceived(stream=stream, data=data):
                self._session.consumed(stream, len(data))
            case BodyEnded():
                self.heard.setdefault("metadata", time.monotonic())
            case PaceSet(seconds=seconds):
                self._keepalive_s = seconds
            case PingAnswered():
                self.round_trips_s.append(time.monotonic() - self._asked_at)
            case SessionEnded(reason=reason):
                raise ValueError(f"the gateway said goodbye: {reason}")
            case _:
                pass

    def _attached(self) -> None:
        self.ready = True
        self._counter += 1
        self.send_nowait(Arrived(stamp=self._counter))
        now = time.monotonic()
        self._announce(now)
        self._beat(now)
        self._fetch()

    def _take(self, frame: AnyFrame) -> None:
        match frame:
            case MetadataVersions(versions=versions):
                self.heard.setdefault(NOTIFICATION, time.monotonic())
                if self._setting.follow and versions != self._versions:
                    self._fetch()
                self._versions = versions
            case Routed(envelope=envelope):
                if envelope.recipient != self._key.node:
                    raise ValueError("an envelope for somebody else")
                self.heard.setdefault(ENVELOPE, time.monotonic())
                self._state = envelope
                self._exchange.settle(self._exchange.arrived())
                if self._setting.follow:
                    self._beat(time.monotonic())
            case Taken():
                self._exchange.taken(frame)
            case _:
                pass

    def _announce(self, now: float) -> None:
        self._announced_at = now
        self.send_nowait(Announce(role="device", port=_SWARM_PORT, artifacts=[]))

    def _fetch(self) -> None:
        stream = self._session.open("/bundle")
        question = BundleRequest(have=dict(self._versions), relay=False)
        self._session.send(stream, codec.encode(question), end=True)

    def _beat(self, now: float) -> None:
        self._beaten_at = now
        self._open_state()
        setting = self._setting
        beat = Heartbeat(
            revision=self._revision,
            metadata=dict(self._versions),
            platform="linux-x86_64",
            program="p2pdist bench",
            name=self._key.node[:8],
            certificate_expires=setting.certificate_expires,
            swarms=setting.swarms,
            disk_free_bytes=10**10,
            installed={},
        )
        self._counter += 1
        envelope = seal(
            codec.encode(beat),
            key=self._key,
            recipient_public=setting.server_public,
            counter=self._counter,
            expires=int(time.time()) + limits.ENVELOPE_LIFE_S,
            nonce=secrets.token_bytes(24),
        )
        self._exchange.send(envelope)

    def _open_state(self) -> None:
        """Read what the admin server wants; only its revision matters here."""
        envelope, self._state = self._state, None
        if envelope is None:
            return
        data = open_envelope(
            envelope, key=self._key, sender_public=self._setting.server_public, now=int(time.time())
        )
        message: FromServer = codec.decode(data, FromServer)
        if isinstance(message, DesiredState):
            self._revision = max(self._revision, message.revision)
            self._heartbeat_s = 0.95 * message.heartbeat_s


class MqttSpeaker:
    """A subscriber of an MQTT 3.1.1 broker: one topic, at most once."""

    protocol: ClassVar[str] = ""

    def __init__(self, setting: Setting, key: IdentityKey) -> None:
        self._name = key.node.encode()[:22]
        self._data = b""
        self._asked_at = self._sent_at = 0.0
        self.ready = False
        self.heard: dict[str, float] = {}
        self.round_trips_s: list[float] = []

    def opened(self) -> bytes:
        body = b"\x00\x04MQTT\x04\x02\x01\x2c" + len(self._name).to_bytes(2, "big") + self._name
        return b"\x10" + bytes([len(body)]) + body

    def received(self, data: bytes) -> bytes:
        self._data += data
        out = b""
        while len(self._data) >= 2 and len(self._data) >= 2 + self._data[1]:
            kind, length = self._data[0] >> 4, self._data[1]
            if length & 0x80:
                raise ValueError("a longer packet than the benchmark sends")
            body, self._data = self._data[2 : 2 + length], self._data[2 + length :]
            if kind == 2:  # CONNACK
                if body[1]:
                    raise ValueError(f"the broker refused: {body[1]}")
                out += b"\x82\x0d\x00\x01\x00\x08versions\x00"
            elif kind == 9:  # SUBACK
                self.ready = True
            elif kind == 3:  # PUBLISH
                self.heard.setdefault(NOTIFICATION, time.monotonic())
            elif kind == 13:  # PINGRESP
                self.round_trips_s.append(time.monotonic() - self._asked_at)
        return out

    def tick(self, now: float) -> bytes:
        if now - self._sent_at < limits.LINK_KEEPALIVE_S:
            return b""
        return self.ping(now)

    def ping(self, now: float) -> bytes:
        self._asked_at = self._sent_at = now
        return b"\xc0\x00"


class PlainSpeaker:
    """Bytes over TLS, nothing else: every byte that comes is the notification."""

    protocol: ClassVar[str] = ""

    def __init__(self, setting: Setting, key: IdentityKey) -> None:
        self.ready = False
        self.heard: dict[str, float] = {}
        self.round_trips_s: list[float] = []

    def opened(self) -> bytes:
        self.ready = True
        return b""

    def received(self, data: bytes) -> bytes:
        self.heard.setdefault(NOTIFICATION, time.monotonic())
        return b""

    def tick(self, now: float) -> bytes:
        return b""

    def ping(self, now: float) -> bytes:
        return b""


class HttpSpeaker(PlainSpeaker):
    """One request on a connection that is kept alive: there is nothing to be notified of."""

    def opened(self) -> bytes:
        return b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"

    def received(self, data: bytes) -> bytes:
        if not data.startswith(b"HTTP/1.1 204"):
            raise ValueError(f"the server says {data[:40]!r}")
        self.ready = True
        return b""


SPEAKERS: Final[Mapping[str, type[Speaker]]] = {
    "link": LinkSpeaker,
    "mqtt": MqttSpeaker,
    "plain": PlainSpeaker,
    "http": HttpSpeaker,
}

REFUSED = (ValueError, P2PDistError)
"""What :meth:`Speaker.received` raises."""


def text_of(data: bytes) -> str:
    """Return bytes as they stand in an order."""
    return base64.b64encode(data).decode()
