"""Strangers at the UDP ports of real programs: a flood of STUN requests, and a port that is being punched."""

from __future__ import annotations

import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import trio
from aioice.stun import Class, Method
from aioice.stun import Message as IceMessage
from aiortc import RTCCertificate
from fleet_logs import LogBook
from fleet_processes import Processes, ProcessProgram, reaching_server
from harness import open_fleet
from OpenSSL import SSL

from p2pdist import limits
from p2pdist.cli.visit import Visitor
from p2pdist.wire.services import Echo
from p2pdist.wire.stun import COOKIE, BindingRequest, encode

pytestmark = pytest.mark.slow  # whole fleets as processes

GROWN_MAX = 30 * limits.MIB
SOFTWARE, PADDING, CHANGE_REQUEST, UNKNOWN = 0x8022, 0x0026, 0x0003, 0x7777
REQUEST, INDICATION, SUCCESS, ERROR = 0x0001, 0x0011, 0x0101, 0x0111
Address = tuple[str, int]


def stun(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    """A STUN message with any attributes, and a transaction of its own."""
    body = b"".join(
        struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4)
        for number, value in attributes
    )
    return struct.pack("!HHI12s", kind, len(body), COOKIE, os.urandom(12)) + body


def question() -> bytes:
    """What a device asks."""
    return encode(BindingRequest(transaction=os.urandom(12)), bytes_min=limits.STUN_REQUEST_BYTES)


def requests(source: random.Random) -> Iterator[bytes]:
    """Whatever somebody may send to a STUN server."""
    while True:
        yield question()
        yield stun(REQUEST)
        yield stun(REQUEST, (SOFTWARE, bytes(16)))
        yield stun(REQUEST, (UNKNOWN, b"what?"), (SOFTWARE, bytes(source.randrange(100))))
        yield stun(REQUEST, *[(UNKNOWN + number, b"") for number in range(source.randrange(200))])
        yield stun(REQUEST, (CHANGE_REQUEST, b"\0\0\0\x06"), (SOFTWARE, bytes(80)))
        yield stun(REQUEST, (PADDING, bytes(source.randrange(1_200))))
        yield stun(source.choice([INDICATION, SUCCESS, ERROR]), (SOFTWARE, bytes(80)))
        yield question()[: source.randrange(limits.STUN_REQUEST_BYTES)]
        yield question() + source.randbytes(source.randrange(1, 2_000))
        yield source.randbytes(source.randrange(1_400))
        yield stun(REQUEST, (SOFTWARE, bytes(9_000)))


class Flood:
    """Requests from many addresses to some ports, and what came back."""

    def __init__(self, hosts: Sequence[str], ports: Sequence[Address]) -> None:
        self._hosts = hosts
        self._ports = ports
        self._asked: dict[bytes, int] = {}
        self.sent = 0
        self.answers: Counter[str] = Counter()
        self.amplified: list[bytes] = []

    async def run(self) -> None:
        """Go on until cancelled."""
        source = random.Random(7)
        packets = requests(source)
        with ExitStack() as stack:
            sockets = [stack.enter_context(udp_socket(host)) for host in self._hosts]
            while True:
                for number, one in enumerate(sockets):
                    # the first ones send most, so that each of them is bounded, too
                    for _ in range(10 if number < 3 else 1):
                        data = next(packets)
                        self._asked[data[8:20]] = len(data)
                        with suppress(BlockingIOError):
                            one.sendto(data, source.choice(self._ports))
                            self.sent += 1
                    self._hear(self._hosts[number], one)
                await trio.sleep(0.005)

    def _hear(self, host: str, one: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                answer = one.recv(65_536)
                self.answers[host] += 1
                if len(answer) > self._asked[answer[8:20]]:
                    self.amplified.append(answer)


@contextmanager
def udp_socket(host: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((host, 0))
        one.setblocking(False)
        yield one


async def test_a_flood_of_stun_requests_gets_little_back_and_its_gateway_serves_its_devices(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0, form=Processes(log_book)) as fleet:
        point = await fleet.add_point(duties=("seed", "gateway"))
        await fleet.publish()
        (device,) = [await fleet.add_device()]
        await fleet.until_linked(device, "point")
        await fleet.until_logged("stun.serving", who=point)
        assert isinstance(point.program, ProcessProgram)
        before = point.program.memory_bytes
        ports = [(point.host, 3478), (point.host, 3479)]
        flood = Flood([fleet.next_host() for _ in range(100)], ports)
        async with trio.open_nursery() as nursery:
            began = trio.current_time()
            nursery.start_soon(flood.run)
            await fleet.until(lambda: flood.sent > 10_000, "it is a flood")
            await answered(device.host, ports[0])
            release = await fleet.release()
            await fleet.until_reported(release)
            nursery.cancel_scope.cancel()
        lasted = trio.current_time() - began
        assert flood.amplified == []
        assert max(flood.answers.values()) <= limits.STUN_SOURCE_BURST + limits.STUN_SOURCE_PER_S * (
            lasted + 1
        )
        assert point.program.memory_bytes - before < GROWN_MAX
        assert not log_book.find("link.down", who=device.name, kind="point"), "it kept its link"


async def answered(host: str, server: Address) -> None:
    """Ask as a device does, and again as it does, until there is an answer."""
    with trio.fail_after(10), trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        await one.bind((host, 0))
        while True:
            request = question()
            await one.sendto(request, server)
            with trio.move_on_after(0.5):
                while (await one.recv(2_048))[8:20] != request[8:20]:
                    pass
                return


def udp_ports(host: str) -> set[int]:
    """The UDP ports that anybody has on an address of this machine."""
    address = f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}"
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    ours = [line[1].partition(":") for line in lines]
    return {int(port, 16) for at, _, port in ours if at == address}


def dtls_hello() -> bytes:
    """The first flight of a DTLS client with a certificate that nobody expects (RFC 6347)."""
    certificate = RTCCertificate.generateCertificate()
    context = SSL.Context(SSL.DTLS_METHOD)
    context.use_certificate(certificate._cert)
    context.use_privatekey(certificate._key)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    with suppress(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(1_400)


def hostile_datagrams() -> list[bytes]:
    """What somebody may send to a port that is being punched, without the credentials for it."""
    guessed = IceMessage(
        message_method=Method.BINDING,
        message_class=Class.REQUEST,
        attributes={"USERNAME": "abcd:efgh", "PRIORITY": 1, "ICE-CONTROLLING": 2, "USE-CANDIDATE": None},
    )
    guessed.add_message_integrity(b"guessed")
    alert = bytes.fromhex("15fefd000000000000000000020228")  # fatal: handshake failure
    closing = bytes.fromhex("15fefd000000000000000100020100")  # close_notify
    return [
        b"",
        b"\x00",
        bytes(guessed),
        stun(REQUEST),
        stun(REQUEST, (SOFTWARE, bytes(400))),
        stun(INDICATION),
        stun(SUCCESS, (0x0020, b"\0\1" + bytes(6))),
        stun(ERROR, (0x0009, b"\0\0\4\x01no")),
        dtls_hello(),
        dtls_hello()[:40],
        alert,
        closing,
        b"\x17\xfe\xfd\0\1" + bytes(60),
        os.urandom(1_200),
    ]


def forged(source: Address, target: Address, data: bytes) -> bytes:
    """A datagram with any source, as a raw socket takes it. IPv4 needs no checksum for UDP (RFC 768)."""
    udp = struct.pack("!HHHH", source[1], target[1], 8 + len(data), 0) + data
    ends = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0) + ends + udp


class Stranger:
    """Sends hostile datagrams to every port that two nodes have for a session.

    With *forging* it also sends each in the name of the other one, as only somebody on the way can.
    """

    def __init__(self, own: str, hosts: tuple[str, str], *, forging: bool) -> None:
        self._own = own
        self._hosts = hosts
        self._forging = forging
        self._others = {host: udp_ports(host) for host in hosts}  # not of the session
        self._datagrams = hostile_datagrams()
        self.sent = 0
        self.answers: list[bytes] = []

    def ports(self, host: str) -> list[Address]:
        return [(host, port) for port in sorted(udp_ports(host) - self._others[host])]

    async def run(self) -> None:
        """Go on until cancelled."""
        with ExitStack() as stack:
            one = stack.enter_context(udp_socket(self._own))
            raw = stack.enter_context(raw_socket()) if self._forging else None
            while True:
                for here, there in (self._hosts, self._hosts[::-1]):
                    for target in self.ports(here):
                        for data in self._datagrams:
                            one.sendto(data, target)
                            self.sent += 1
                            for source in self.ports(there) if raw is not None else ():
                                assert raw is not None
                                raw.sendto(forged(source, target, data), target)
                with suppress(BlockingIOError):
                    self.answers.append(one.recv(65_536))
                await trio.sleep(0.01)


def raw_socket() -> socket.socket:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw.setblocking(False)
    return raw


@pytest.mark.parametrize(
    "forging",
    [
        False,
        pytest.param(True, marks=pytest.mark.skipif(os.geteuid() != 0, reason="makes raw sockets")),
    ],
    ids=["with its own address", "with the address of the other side"],
)
async def test_a_stranger_at_the_port_of_a_session_neither_harms_it_nor_gets_an_answer(
    tmp_path: Path, log_book: LogBook, forging: bool
) -> None:
    data = random.Random(9).randbytes(1_000_000)
    came = bytearray()
    async with open_fleet(tmp_path, log_book, points=1, devices=1, form=Processes(log_book)) as fleet:
        (device,) = fleet.devices
        here = fleet.next_host()
        operator = Visitor((await reaching_server(fleet)).target("operator"), hosts=[here])
        stranger = Stranger(fleet.next_host(), (here, device.host), forging=forging)
        async with (
            trio.open_nursery() as nursery,
            operator.visit(device.name, Echo(), better_after_s=0.0) as (_, stream, echo, punching),
        ):
            if not forging:
                nursery.start_soon(stranger.run)

            async def receive() -> None:
                while len(came) < len(data):
                    came.extend(await echo.receive_some())

            async with trio.open_nursery() as talking:
                talking.start_soon(receive)
                await echo.send_all(data[: len(data) // 2])
                with trio.fail_after(10):
                    await stream.wait_path("direct")
                if forging:  # an attempt under way would fail, as DTLS has no keys yet: relayed, and again
                    nursery.start_soon(stranger.run)
                sent = stranger.sent
                await fleet.until(lambda: stranger.sent > sent + 2_000, "the stranger goes on")
                await echo.send_all(data[len(data) // 2 :])
            assert came == data
            assert stream.path == "direct"
            assert [attempt.path for attempt in punching.attempts] == ["direct"], "one attempt was enough"
            assert stranger.answers == []
            nursery.cancel_scope.cancel()
