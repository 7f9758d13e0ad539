"""Many light devices in one process: a program that holds TLS connections, told what to do by lines of JSON.

Each device has a certificate and a node id of its own, and says what a :class:`~speakers.Speaker` makes it
say. One thread and one epoll serve them all, because the devices share the machine with what is measured.

    {"do": "attach", "at_once": 64}  connect every device, so many at a time; answers when all are ready
    {"do": "listen", "follow": true} forget what was heard; from now on, act on what is heard, or not
    {"do": "heard", "what": "…", "within_s": 60}  answer with when each device heard it first
    {"do": "pings", "every_s": 0.02} answer with the round trips so far, and measure on at this pace (0: not)
    {"do": "again", "count": 100, "within_s": 60}  cut the first devices' connections; all come again at once
    {"do": "usage"}                  answer with the CPU seconds used so far
"""

from __future__ import annotations

import base64
import errno
import heapq
import itertools
import json
import math
import os
import random
import select
import socket
import ssl
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from speakers import REFUSED, SPEAKERS, Setting, Speaker

from p2pdist.core.upstream import RETRY_FIRST_S, RETRY_MAX_S
from p2pdist.net.tls import stranger_context
from p2pdist.trust.keys import IdentityKey

_READ_BYTES = 16_384
_TICK_S = 0.05  # between two looks at the clock
_ROUND_S = 5.0  # in which each device looks at its clock once, as an agent does
_PATIENCE_S = 10.0  # until a connection is ready; then it is tried again, as an agent does
_PER_ADDRESS = 1_500  # connections from one source address
_PINGED = 200  # devices at the end of the list, whose round trips are measured
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h


class Device:
    """One device and its connection."""

    __slots__ = ("certificate", "failures", "host", "key", "out", "sock", "speaker", "stands", "started")

    def __init__(self, key: IdentityKey, certificate: bytes, host: str) -> None:
        self.key = key
        self.certificate = certificate
        self.host = host
        self.sock: ssl.SSLSocket | None = None
        self.speaker: Speaker | None = None
        self.out = bytearray()
        self.stands = False  # TLS does
        self.failures = 0
        self.started = 0.0

    @property
    def ready(self) -> bool:
        """Whether the other side has taken it in."""
        return self.speaker is not None and self.stands and self.speaker.ready


class Crowd:
    """The devices of this process, and what is asked of them."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._address = (order["host"], order["port"])
        self._setting = Setting.parse(order["setting"])
        self._speaker = SPEAKERS[order["speaker"]]
        self._context = stranger_context(base64.b64decode(order["ca_pem"]))
        self._context.set_alpn_protocols([self._speaker.protocol] if self._speaker.protocol else [])
        first = order["first"]
        self._devices = [
            Device(
                IdentityKey(base64.b64decode(seed)),
                base64.b64decode(certificate),
                f"{order['hosts']}.{100 + (first + number) // _PER_ADDRESS}.2",
            )
            for number, (seed, certificate) in enumerate(order["devices"])
        ]
        self._epoll = select.epoll()
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        self._connected: dict[int, Device] = {}
        self._waiting: deque[Device] = deque()
        self._later: list[tuple[float, int, Device]] = []
        self._order = itertools.count()
        self._dialling: dict[Device, None] = {}
        self._at_once = 64
        self._failures: Counter[str] = Counter()
        self._answer: Callable[[], dict[str, Any] | None] = lambda: None
        self._next_tick = self._next_ping = self._ping_every_s = 0.0
        self._turn = self._pings = 0
        self._next_answer = 0.0
        self._orders = b""

    def run(self) -> None:
        """Say that everything is made, then serve until standard input ends."""
        print("{}", flush=True)
        descriptor = sys.stdin.fileno()
        while True:
            for ready, events in self._epoll.poll(_TICK_S, 512):
                if ready == descriptor:
                    data = os.read(descriptor, 65_536)
                    if not data:
                        return
                    self._obey(data)
                elif device := self._connected.get(ready):
                    self._move(device, events)
            self._look(time.monotonic())

    def _look(self, now: float) -> None:
        if now >= self._next_tick:
            self._next_tick = now + _TICK_S
            self._tick(now)
        if self._ping_every_s and now >= self._next_ping:
            self._next_ping = now + self._ping_every_s
            self._pings += 1
            device = self._devices[-1 - self._pings % min(_PINGED, len(self._devices))]
            if device.ready and device.speaker is not None:
                self._say(device, device.speaker.ping(now))
        while self._later and self._later[0][0] <= now:
            self._waiting.append(heapq.heappop(self._later)[2])
        while self._waiting and len(self._dialling) < self._at_once:
            self._dial(self._waiting.popleft(), now)
        answer = self._answer()
        if answer is not None:
            self._answer = lambda: None
            print(json.dumps(answer), flush=True)

    def _tick(self, now: float) -> None:
        for _ in range(max(1, round(len(self._devices) * _TICK_S / _ROUND_S))):
            self._turn = (self._turn + 1) % len(self._devices)
            device = self._devices[self._turn]
            if device.ready and device.speaker is not None:
                self._say(device, device.speaker.tick(now))
        late = [device for device in self._dialling if device.started < now - _PATIENCE_S]
        for device in late:
            self._failed(device, "not ready in time")

    # Orders ------------------------------------------------------------------------------------------

    def _obey(self, data: bytes) -> None:
        *lines, self._orders = (self._orders + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            match order["do"]:
                case "attach":
                    self._at_once = order["at_once"]
                    self._waiting.extend(self._devices)
                    self._answer = self._attached
                case "again":
                    self._at_once = len(self._devices)
                    for device in self._devices[: order["count"]]:
                        self._cut(device)
                        self._waiting.append(device)
                    self._answer = partial(self._attached, time.monotonic() + order["within_s"])
                case "listen":
                    self._setting.follow = order["follow"]
                    for device in self._devices:
                        if device.speaker is not None:
                            device.speaker.heard.clear()
                    self._answer = dict
                case "heard":
                    self._hear(order["what"], time.monotonic() + order["within_s"])
                case "pings":
                    self._ping_every_s = order["every_s"]
                    self._answer = self._round_trips
                case "usage":
                    self._answer = lambda: {"cpu_s": time.process_time()}

    def _attached(self, until: float = math.inf) -> dict[str, Any] | None:
        left = len(self._waiting) + len(self._later) + len(self._dialling)
        if left and time.monotonic() < until:
            return None
        failures, self._failures = self._failures, Counter()
        return {"at": time.monotonic(), "failures": dict(failures), "left": left}

    def _hear(self, what: str, until: float) -> None:
        def answer() -> dict[str, Any] | None:
            heard = [
                device.speaker.heard[what]
                for device in self._devices
                if device.speaker is not None and what in device.speaker.heard
            ]
            if len(heard) < len(self._devices) and time.monotonic() < until:
                self._next_answer = time.monotonic() + 0.5
                return None
            return {"at": heard, "missing": len(self._devices) - len(heard)}

        self._next_answer = 0.0
        self._answer = lambda: answer() if time.monotonic() >= self._next_answer else None

    def _round_trips(self) -> dict[str, Any]:
        taken: list[float] = []
        for device in self._devices:
            if device.speaker is not None:
                taken += device.speaker.round_trips_s
                device.speaker.round_trips_s.clear()
        return {"round_trips_s": taken}

    # Connections -------------------------------------------------------------------------------------

    def _dial(self, device: Device, now: float) -> None:
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.bind((device.host, 0))
        self._show(device)
        sock = self._context.wrap_socket(plain, do_handshake_on_connect=False)
        device.sock, device.speaker = sock, self._speaker(self._setting, device.key)
        device.started, device.stands, device.out = now, False, bytearray()
        self._dialling[device] = None
        code = sock.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            self._failed(device, os.strerror(code))
            return
        self._connected[sock.fileno()] = device
        self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def _show(self, device: Device) -> None:
        """Have the next connection show this device's certificate."""
        descriptor = os.memfd_create("device", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, device.certificate + b"\n" + device.key.private_pem())
            self._context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def _move(self, device: Device, events: int) -> None:
        try:
            if not device.stands:
                self._shake(device)
            elif device.out and events & select.EPOLLOUT:
                self._say(device, b"")
            if device.stands and device.sock is not None:
                self._receive(device)
        except (OSError, *REFUSED) as error:
            self._failed(device, f"{type(error).__name__}: {error}")

    def _shake(self, device: Device) -> None:
        assert device.sock is not None and device.speaker is not None
        try:
            device.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._epoll.modify(device.sock.fileno(), select.EPOLLIN)
            return
        except ssl.SSLWantWriteError:
            self._epoll.modify(device.sock.fileno(), select.EPOLLOUT)
            return
        device.stands = True
        self._epoll.modify(device.sock.fileno(), select.EPOLLIN)
        self._say(device, device.speaker.opened())
        self._settle(device)

    def _receive(self, device: Device) -> None:
        assert device.sock is not None and device.speaker is not None
        while True:
            try:
                data = device.sock.recv(_READ_BYTES)
            except ssl.SSLWantReadError:
                return
            if not data:
                raise OSError("the other side has closed the connection")
            self._say(device, device.speaker.received(data))
            if not self._has_more(device):
                return

    def _has_more(self, device: Device) -> bool:
        """Take in how the device stands, and tell whether more has come; not if it turned out gone."""
        if device.sock is None:
            return False
        self._settle(device)
        return device.sock.pending() > 0

    def _settle(self, device: Device) -> None:
        if device.ready:
            self._dialling.pop(device, None)
            device.failures = 0

    def _say(self, device: Device, data: bytes) -> None:
        if device.sock is None or not (data or device.out):
            return
        device.out += data
        try:
            while device.out:
                del device.out[: device.sock.send(device.out)]
            wanted = select.EPOLLIN
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            wanted = select.EPOLLIN | select.EPOLLOUT
        except OSError as error:
            self._failed(device, f"{type(error).__name__}: {error}")
            return
        if wanted != select.EPOLLIN or not data:
            self._epoll.modify(device.sock.fileno(), wanted)

    def _failed(self, device: Device, reason: str) -> None:
        self._failures[reason] += 1
        self._cut(device)
        device.failures += 1
        delay = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(device.failures, 10))
        again = time.monotonic() + delay * (0.5 + 0.5 * random.random())
        heapq.heappush(self._later, (again, next(self._order), device))

    def _cut(self, device: Device) -> None:
        self._dialling.pop(device, None)
        sock, device.sock, device.speaker = device.sock, None, None
        if sock is not None:
            if self._connected.pop(sock.fileno(), None) is not None:
                self._epoll.unregister(sock.fileno())
            sock.close()


if __name__ == "__main__":
    Crowd(json.loads(sys.stdin.readline())).run()
