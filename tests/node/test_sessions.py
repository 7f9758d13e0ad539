"""What operators do with a device, over a path in memory: everything else is real."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import memory_stream_pair

from p2pdist import limits
from p2pdist.core.services import ServicePolicy
from p2pdist.errors import TrustError, Unavailable
from p2pdist.ids import FleetName, GroupPath
from p2pdist.logs import TAIL, configure_logging, get_logger
from p2pdist.net.conversations import Conversation, initiate
from p2pdist.net.framing import FrameSplitter
from p2pdist.net.multiplex import Multiplex, open_multiplex
from p2pdist.net.punching import Punching
from p2pdist.net.rtc.island import open_island
from p2pdist.net.sessions import SessionStream, open_session
from p2pdist.net.tls import TlsIdentity
from p2pdist.node.nat import NatWatch
from p2pdist.node.sessions import Sessions
from p2pdist.node.vigil import Visitors
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire import codec
from p2pdist.wire.messages import SessionInvite
from p2pdist.wire.nat import NatBehaviour
from p2pdist.wire.services import (
    TUNNEL_PATH,
    Diagnosis,
    Echo,
    Logs,
    NetworkFacts,
    Reachability,
    Service,
    Tunnel,
    TunnelOpening,
)
from p2pdist.wire.stun import Endpoint
from tests.answering import answering_server


class Device:
    """A device with its sessions, and an operator who has been announced to it."""

    def __init__(self, *, sends: bool = True, **policy: Any) -> None:
        fleet = FleetAuthority.create(FleetName("acme"), datetime.now(UTC))
        self.key, self.operator = IdentityKey.generate(), IdentityKey.generate()
        self.identity = certified(self.key, fleet, trusts=fleet)
        self.own = FleetAuthority.create(FleetName("session"), datetime.now(UTC))
        self.operator_identity = certified(self.operator, self.own, trusts=fleet)
        self.nat = NatWatch("127.0.0.1", sends=lambda: sends)
        self.sessions = Sessions(
            identity=lambda: self.identity,
            policy=ServicePolicy(**policy),
            diagnose=lambda: {"uplink": "the office point"},
            nat=self.nat,
            visitors=Visitors(),
        )
        self.failures: list[Exception] = []

    def invite(self, number: int = 1, *, life_s: int = 60, service: Service | None = None) -> str:
        session = f"{number:032x}"
        self.sessions.expect(
            SessionInvite(
                session=session,
                initiator=self.operator.node,
                authority=self.own.certificate_pem,
                by="alice",
                service=service or Echo(),
                expires=int(time.time()) + life_s,
            )
        )
        return session

    async def carry(self, session: str, stream: trio.abc.Stream) -> None:
        try:
            await self.sessions.carry(session, lambda: stream, "relayed")
        except (TrustError, Unavailable) as error:
            self.failures.append(error)
            await trio.aclose_forcefully(stream)


def certified(key: IdentityKey, by: FleetAuthority, *, trusts: FleetAuthority) -> TlsIdentity:
    pem = by.issue(key.public, group=GroupPath("/"), swarms=[], life_s=600, now=datetime.now(UTC))
    return TlsIdentity(certificate_pem=pem, key_pem=key.private_pem(), ca_pem=trusts.certificate_pem)


@asynccontextmanager
async def running(device: Device) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.sessions.run)
        yield nursery
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def visiting(
    device: Device, nursery: trio.Nursery, service: Service, session: str | None = None
) -> AsyncIterator[tuple[SessionStream, Conversation]]:
    async with open_session() as stream:
        join(device, nursery, stream, session or device.invite(service=service))
        async with initiate(
            stream,
            service,
            identity=device.operator_identity,
            expect=device.key.node,
            on_signal=lambda data: None,
        ) as conversation:
            yield stream, conversation


def join(device: Device, nursery: trio.Nursery, stream: SessionStream, session: str) -> None:
    ours, theirs = memory_stream_pair()
    stream.attach(ours, "relayed")
    nursery.start_soon(device.carry, session, theirs)


async def everything(conversation: Conversation) -> bytes:
    return b"".join([bytes(data) async for data in conversation])


@asynccontextmanager
async def tunnelling(device: Device, nursery: trio.Nursery, port: int) -> AsyncIterator[Multiplex]:
    async with (
        visiting(device, nursery, Tunnel(port=port)) as (_, conversation),
        open_multiplex(conversation, dialler=True, peer="the device") as many,
    ):
        yield many


async def shouted(many: Multiplex, text: bytes) -> bytes:
    """Say something to the device's port through a connection of its own; return what comes back."""
    async with many.open_stream(TUNNEL_PATH, TunnelOpening()) as connection:
        await connection.send_all(text)
        await connection.send_eof()
        return b"".join([bytes(data) async for data in connection])


async def test_a_tunnel_reaches_an_allowed_port_of_the_device() -> None:
    async with answering_server(bytes.upper) as port:
        device = Device(tunnel_ports=(port,))
        async with running(device) as nursery, tunnelling(device, nursery, port) as many:
            assert await shouted(many, b"hello") == b"HELLO"


async def test_the_connections_of_a_tunnel_share_one_session_and_each_is_in_the_devices_log() -> None:
    configure_logging("p2pdist-agent", "info")
    async with answering_server(bytes.upper) as port:
        device = Device(tunnel_ports=(port,))
        async with running(device) as nursery, tunnelling(device, nursery, port) as many:
            async with (
                many.open_stream(TUNNEL_PATH, TunnelOpening()) as one,
                many.open_stream(TUNNEL_PATH, TunnelOpening()) as other,
            ):
                for connection in (other, one):
                    await connection.send_all(b"x")
                    assert await connection.receive_some() == b"X"
            assert device.sessions.count == 1
    lines = [line for line in TAIL.last(20) if "tunnel.connected" in line and str(port) in line]
    assert len(lines) == 2 and all("alice" in line for line in lines)


async def test_a_tunnel_to_a_port_that_is_not_allowed_is_refused() -> None:
    device = Device(tunnel_ports=(3389,))
    async with running(device) as nursery:
        with pytest.raises(Unavailable, match=r"port 22 is not allowed; allowed here: 3389"):
            async with visiting(device, nursery, Tunnel(port=22)):
                pass


async def test_a_connection_to_a_port_at_which_nothing_listens_is_refused_and_others_go_on() -> None:
    async with answering_server(bytes.upper) as port:
        pass
    device = Device(tunnel_ports=(port,))
    async with running(device) as nursery, tunnelling(device, nursery, port) as many:
        for _ in range(2):
            with pytest.raises(Unavailable) as refused, trio.fail_after(5):
                await shouted(many, b"hello")
            assert f"port {port} of the device does not answer: nothing listens there" in str(refused.value)
            assert "start the program there" in str(refused.value)


async def test_a_connection_to_a_port_that_hangs_is_refused_in_time_for_the_operator_to_hear_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(host: str, port: int) -> None:
        await trio.sleep_forever()

    assert limits.TUNNEL_CONNECT_S < limits.REQUEST_TIMEOUT_S
    monkeypatch.setattr(limits, "TUNNEL_CONNECT_S", 0.1)
    monkeypatch.setattr(trio, "open_tcp_stream", hang)
    device = Device(tunnel_ports=(22,))
    async with running(device) as nursery, tunnelling(device, nursery, 22) as many:
        with pytest.raises(Unavailable, match=r"port 22 of the device did not answer within 0\.1 s; .*hang"):
            await shouted(many, b"hello")


@pytest.mark.parametrize(
    ("announced", "asked"),
    [(Echo(), Tunnel(port=22)), (Tunnel(port=80), Tunnel(port=22)), (Diagnosis(), Logs())],
)
async def test_another_service_than_the_one_that_was_announced_is_refused(
    announced: Service, asked: Service
) -> None:
    device = Device(tunnel_ports=(22, 80))
    async with running(device) as nursery:
        with pytest.raises(Unavailable, match="this session was announced for another use"):
            async with visiting(device, nursery, asked, device.invite(service=announced)):
                pass


async def test_a_session_goes_on_over_a_second_path_when_the_first_is_lost() -> None:
    device = Device()
    session = device.invite()
    async with running(device) as nursery, open_session() as stream:
        ours, theirs = memory_stream_pair()
        stream.attach(ours, "relayed")
        nursery.start_soon(device.carry, session, theirs)
        async with initiate(
            stream,
            Echo(),
            identity=device.operator_identity,
            expect=device.key.node,
            on_signal=lambda data: None,
        ) as echo:
            await echo.send_all(b"one")
            assert await echo.receive_some() == b"one"
            join(device, nursery, stream, session)
            await trio.aclose_forcefully(ours)
            await trio.aclose_forcefully(theirs)
            await echo.send_all(b"two")
            with trio.fail_after(5):
                assert await echo.receive_some() == b"two"


@pytest.mark.parametrize("sends", [True, False])
async def test_a_session_gets_a_direct_path_also_with_a_device_that_may_begin_nothing(sends: bool) -> None:
    device = Device(sends=sends)
    async with running(device) as nursery, open_island() as island, open_session() as stream:
        join(device, nursery, stream, device.invite())
        punching = Punching(stream, island, leads=True, stun_servers=lambda: (), hosts=["127.0.0.1"])
        async with (
            initiate(
                stream,
                Echo(),
                identity=device.operator_identity,
                expect=device.key.node,
                on_signal=punching.take,
            ) as echo,
            punching.beside(echo),
            trio.open_nursery() as hearing,
        ):
            hearing.start_soon(everything, echo)  # and the signals in between
            with trio.fail_after(10):
                await stream.wait_path("direct")
            hearing.cancel_scope.cancel()


async def test_the_logs_of_a_device_are_shown_and_followed(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("p2pdist-agent", "info")
    log = get_logger()
    log.info("before.it", number=1)
    device = Device()
    async with (
        running(device) as nursery,
        visiting(device, nursery, Logs(lines=5, follow=True)) as (_, shown),
    ):
        came = b""
        with trio.fail_after(5):
            while b"before.it" not in came:
                came += await shown.receive_some()
            log.info("while.following", number=2)
            while b"while.following" not in came:
                came += await shown.receive_some()


async def test_logs_that_are_not_followed_end() -> None:
    configure_logging("p2pdist-agent", "info")
    for number in range(5):
        get_logger().info("line", number=number)
    device = Device()
    async with running(device) as nursery, visiting(device, nursery, Logs(lines=2)) as (_, shown):
        lines = (await everything(shown)).decode().splitlines()
    assert len(lines) == 2


async def test_a_diagnosis_is_what_the_device_thinks_of_itself() -> None:
    device = Device()
    async with running(device) as nursery, visiting(device, nursery, Diagnosis()) as (_, told):
        assert json.loads(await everything(told)) == {"uplink": "the office point"}


@pytest.mark.parametrize("life_s", [0, None])
async def test_a_path_of_a_session_to_which_nobody_was_invited_is_refused(life_s: int | None) -> None:
    device = Device()
    session = device.invite(life_s=life_s) if life_s is not None else f"{9:032x}"
    async with running(device):
        _, theirs = memory_stream_pair()
        with pytest.raises(TrustError, match="nobody was invited"):
            await device.sessions.carry(session, lambda: theirs, "relayed")


async def test_somebody_else_than_the_one_who_was_invited_gets_nowhere() -> None:
    device, thief = Device(), Device()
    async with running(device) as nursery, open_session() as stream:
        join(device, nursery, stream, device.invite())
        with pytest.raises((TrustError, Unavailable)), trio.fail_after(5):
            async with initiate(
                stream,
                Echo(),
                identity=TlsIdentity(
                    certificate_pem=thief.operator_identity.certificate_pem,
                    key_pem=thief.operator_identity.key_pem,
                    ca_pem=device.operator_identity.ca_pem,
                ),
                expect=device.key.node,
                on_signal=lambda data: None,
            ):
                pass


async def test_there_are_only_so_many_sessions_at_once() -> None:
    device = Device()
    async with running(device) as nursery:
        for number in range(limits.SESSIONS_MAX):
            _, theirs = memory_stream_pair()
            nursery.start_soon(device.carry, device.invite(number), theirs)
        await trio.testing.wait_all_tasks_blocked()
        _, theirs = memory_stream_pair()
        with pytest.raises(Unavailable, match="sessions already"):
            await device.sessions.carry(device.invite(1_000), lambda: theirs, "relayed")


async def test_a_session_that_ends_makes_room() -> None:
    device = Device()
    async with running(device) as nursery:
        async with visiting(device, nursery, Echo()) as (_, echo):
            await echo.send_all(b"x")
            assert await echo.receive_some() == b"x"
        with trio.fail_after(5):
            while device.sessions.count:
                await trio.sleep(0.01)


async def test_a_device_tells_of_its_nats_and_stays_until_the_initiator_has_seen_enough() -> None:
    device = Device()
    seen = NatBehaviour(gateway=Endpoint("192.0.2.1", 3478), local=Endpoint("10.0.0.2", 5000))
    device.nat.behaviours = (seen,)
    device.nat._known.set()
    async with running(device) as nursery, visiting(device, nursery, Reachability()) as (_, told):
        splitter, frames = FrameSplitter(limits.FRAME_BYTES_MAX), []
        with trio.fail_after(5):
            while not frames:
                frames += splitter.feed(await told.receive_some())
        facts: NetworkFacts = codec.decode(frames[0], NetworkFacts)
        assert facts.nats == (seen,)
        (described,) = device.sessions.describe()
        assert (described["by"], described["path"]) == ("alice", "relayed")
    assert device.sessions.describe() == []


async def test_a_session_whose_paths_all_break_at_once_ends_itself_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device()
    async with running(device) as nursery:
        async with open_session() as stream:
            session = device.invite(service=Reachability())
            ours, theirs = memory_stream_pair()
            stream.attach(ours, "relayed")
            nursery.start_soon(device.carry, session, theirs)
            async with initiate(
                stream,
                Reachability(),
                identity=device.operator_identity,
                expect=device.key.node,
                on_signal=lambda data: None,
            ):
                monkeypatch.setattr(limits, "SESSION_PATHLESS_S", 0.1)
                await trio.aclose_forcefully(theirs)
                await trio.aclose_forcefully(ours)
                with trio.fail_after(5):
                    while device.sessions.count:
                        await trio.sleep(0.01)
        monkeypatch.undo()
        async with visiting(device, nursery, Echo(), device.invite(2)) as (_, echo):
            await echo.send_all(b"still here")
            assert await echo.receive_some() == b"still here"
