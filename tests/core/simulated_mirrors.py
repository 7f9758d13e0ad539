"""Mirrors, readers and a swarm between them, in simulated time: what a seed did once, it does again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from random import Random

from p2pdist.core.mirrors import MirrorFailed, Mirrors
from p2pdist.core.reading import Reading, Request
from p2pdist.trust.catalog import Mirror

TICK_S = 0.5
PIECE = 64


class SimulatedMirror:
    """An honest mirror; subclasses do one thing wrong."""

    def __init__(self, name: str, content: bytes, random: Random) -> None:
        self.url = f"https://{name}/f"
        self.content = content
        self.random = random
        self.speed = random.randrange(100, 1_000)
        self.sent = 0

    def open(self, request: Request, now: float) -> None:
        """Answer, or raise MirrorFailed."""

    def send(self, request: Request, now: float) -> bytes:
        """Send what goes through in a tick."""
        return self.content[request.position : min(request.end, request.position + self.speed)]

    def etag(self) -> str:
        return '"1"'


class Liar(SimulatedMirror):
    def send(self, request: Request, now: float) -> bytes:
        data = bytearray(super().send(request, now))
        if data and self.random.random() < 0.2:
            data[self.random.randrange(len(data))] ^= 1
        return bytes(data)


class Staller(SimulatedMirror):
    def send(self, request: Request, now: float) -> bytes:
        if now - request.began > 15:
            raise MirrorFailed("it sent 0 bytes in 15 s")
        return super().send(request, now)[: self.random.randrange(40)] if now - request.began < 1 else b""


class Half(SimulatedMirror):
    def send(self, request: Request, now: float) -> bytes:
        if request.position >= (request.start + request.end + 1) // 2:
            raise MirrorFailed("the connection failed")
        return super().send(request, now)[: (request.end - request.position + 1) // 2]


class Circle(SimulatedMirror):
    def open(self, request: Request, now: float) -> None:
        raise MirrorFailed("it redirects in a circle", fault="useless")


class Changing(SimulatedMirror):
    """Its file gets another ETag now and then, and answers that go on across it are refused."""

    version = 0

    def open(self, request: Request, now: float) -> None:
        if self.random.random() < 0.3:
            self.version += 1
        if request.if_range not in ("", self.etag()):
            raise MirrorFailed("its file has changed", fault="changed")

    def send(self, request: Request, now: float) -> bytes:
        if self.random.random() < 0.1:
            raise MirrorFailed("the connection failed")
        return super().send(request, now)

    def etag(self) -> str:
        return f'"{self.version}"'


class Busy(SimulatedMirror):
    """Wants to be left alone for a while, and remembers who did not."""

    until = 0.0
    disturbed = 0

    def open(self, request: Request, now: float) -> None:
        if self.random.random() < 0.3 and now >= self.until:
            self.until = now + 20
        elif now < self.until - TICK_S:
            self.disturbed += 1
        if now < self.until:
            raise MirrorFailed("it answers 429", retry_after_s=self.until - now)


BAD = (Liar, Staller, Half, Circle, Changing, Busy)


@dataclass
class Reader:
    reading: Reading
    held: bytearray
    asked: list[Request] = field(default_factory=list)
    handed: list[int] = field(default_factory=list)
    alive: bool = True


class World:
    """Readers of one artifact.

    Args:
        seed: What everything that is random comes from.
        kinds: The mirrors.
        readers: How many readers.
        connected: Whether pieces get from one reader to the others.
        line: How many bytes each reader's requests get through together in a tick; 0 is unlimited.
    """

    def __init__(
        self,
        seed: int,
        kinds: list[type[SimulatedMirror]],
        *,
        readers: int = 1,
        connected: bool = True,
        line: int = 0,
    ) -> None:
        self.random = Random(seed)
        self.content = self.random.randbytes(self.random.randrange(1, 120 * PIECE))
        self.pieces = -(-len(self.content) // PIECE)
        self.mirrors = {
            mirror.url: mirror
            for mirror in (kind(f"m{i}", self.content, self.random) for i, kind in enumerate(kinds))
        }
        self.connected = connected
        self.line = line
        self.now = 0.0
        hashes = [hashlib.sha256(self.piece(p)).digest() for p in range(self.pieces)]
        self.readers = [
            Reader(
                Reading(
                    length=len(self.content),
                    piece_bytes=PIECE,
                    is_right=lambda piece, data: hashlib.sha256(data).digest() == hashes[piece],
                    mirrors=Mirrors([Mirror(url=url) for url in self.mirrors]),
                    reader=number,
                    readers=readers,
                    now=0.0,
                ),
                bytearray(self.pieces),
            )
            for number in range(readers)
        ]

    def piece(self, piece: int) -> bytes:
        return self.content[piece * PIECE : (piece + 1) * PIECE]

    @property
    def read(self) -> int:
        """Pieces that came right from mirrors, to all readers together."""
        return sum(reader.reading.statistics().read for reader in self.readers)

    def run(self, seconds: float) -> bool:
        """Run until all living readers are complete; return whether they are."""
        until = self.now + seconds
        while self.now < until:
            self.now += TICK_S
            living = [reader for reader in self.readers if reader.alive]
            for reader in living:
                self._swarm(reader, living)
            if all(reader.reading.complete for reader in living):
                return True
            for reader in living:
                self._ask(reader)
        return False

    def _swarm(self, reader: Reader, living: list[Reader]) -> None:
        for piece in reader.handed:
            reader.held[piece] = 1
        reader.handed.clear()
        elsewhere = bytearray(self.pieces)
        for other in living if self.connected else []:
            for piece in range(self.pieces) if other is not reader else ():
                elsewhere[piece] |= other.held[piece]
        for piece in range(self.pieces):
            if elsewhere[piece] and self.random.random() < 0.3:
                reader.held[piece] = 1
        reader.reading.handle_holdings(bytes(reader.held), bytes(elsewhere), self.now)

    def _ask(self, reader: Reader) -> None:
        reading = reader.reading
        while len(reader.asked) < 8 and (request := reading.next_request(self.now)) is not None:
            try:
                self.mirrors[request.mirror.url].open(request, self.now)
                reader.asked.append(request)
            except MirrorFailed as error:
                reading.handle_ended(request, self.now, error)
        for request in list(reader.asked):
            error = self._send(reader, request)
            if error is not None or not reading.is_wanted(request, self.now):
                reader.asked.remove(request)
                reading.handle_ended(request, self.now, error)

    def _send(self, reader: Reader, request: Request) -> MirrorFailed | None:
        mirror = self.mirrors[request.mirror.url]
        try:
            data = mirror.send(request, self.now)
            if self.line:
                data = data[: self.line // len(reader.asked) + (self.random.random() < 0.5)]
        except MirrorFailed as error:
            return error
        mirror.sent += len(data)
        for piece in reader.reading.handle_bytes(request, data, self.now, mirror.etag()):
            assert piece.data == self.piece(piece.piece)
            if reader.reading.handle_handed_over(piece.piece, self.now):
                reader.handed.append(piece.piece)
        return None
