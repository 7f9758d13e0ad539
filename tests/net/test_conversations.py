"""Services inside of sessions: who may ask, what both sides hear, and what nobody on the way can do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable
from p2pdist.ids import FleetName, NodeId
from p2pdist.net.conversations import Conversation, answer, initiate
from p2pdist.net.sessions import SessionStream, open_session
from p2pdist.net.tls import TlsIdentity
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.wire.services import Accepted, Ask, Tunnel


def refuse(question: Ask) -> str:
    return "port 22 is not among the allowed ports"


def accept(question: Ask) -> None:
    return None


@dataclass
class Scene:
    """An operator and a device, and a session between them."""

    fleet: Any
    signals: list[bytes] = field(default_factory=list)
    asked: list[Ask] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.operator = self.fleet.identity()
        self.device = self.fleet.identity()

    def node(self, identity: TlsIdentity) -> NodeId:
        node: NodeId = self.fleet.node_of(identity)
        return node

    @asynccontextmanager
    async def initiated(
        self, stream: SessionStream, *, expect: NodeId | None = None, identity: TlsIdentity | None = None
    ) -> AsyncIterator[Conversation]:
        async with initiate(
            stream,
            Tunnel(port=22),
            identity=identity or self.operator,
            expect=expect or self.node(self.device),
            on_signal=self.signals.append,
        ) as conversation:
            yield conversation

    async def serve(
        self,
        stream: SessionStream,
        *,
        judge: Callable[[Ask], str | None] = accept,
        expect: NodeId | None = None,
    ) -> None:
        """Echo what comes."""
        try:
            async with answer(
                stream,
                identity=self.device,
                expect=expect or self.node(self.operator),
                judge=judge,
                on_signal=self.signals.append,
            ) as (question, conversation):
                self.asked.append(question)
                await conversation.signal(b"reach me so")
                async for data in conversation:
                    await conversation.send_all(data)
        except (P2PDistError, trio.BrokenResourceError) as error:
            self.failures.append(error)
            await stream.aclose()


@pytest.fixture
def scene(fleet: Any) -> Scene:
    return Scene(fleet)


@asynccontextmanager
async def joined() -> AsyncIterator[tuple[SessionStream, SessionStream]]:
    async with open_session() as left, open_session() as right:
        ours, theirs = trio.testing.memory_stream_pair()
        left.attach(ours, "relayed")
        right.attach(theirs, "relayed")
        yield left, right


async def test_a_service_carries_bytes_both_ways_and_signals_beside_them(
    autojump_clock: object, scene: Scene
) -> None:
    data = bytes(range(256)) * 1_000
    async with joined() as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(scene.serve, right)
        async with scene.initiated(left) as conversation:
            nursery.start_soon(conversation.send_all, data)
            came = bytearray()
            while len(came) < len(data):
                came += await conversation.receive_some()
            await conversation.send_eof()
            assert await conversation.receive_some() == b""
    assert came == data
    assert scene.asked == [Ask(service=Tunnel(port=22))]
    assert scene.signals == [b"reach me so"]


async def test_the_last_bytes_arrive_when_the_sender_leaves_at_once(
    autojump_clock: object, scene: Scene
) -> None:
    got = bytearray()
    async with joined() as (left, right), trio.open_nursery() as nursery:

        async def take() -> None:
            async with answer(
                right,
                identity=scene.device,
                expect=scene.node(scene.operator),
                judge=accept,
                on_signal=scene.signals.append,
            ) as (_, conversation):
                async for data in conversation:
                    got.extend(data)

        nursery.start_soon(take)
        async with scene.initiated(left) as conversation:
            await conversation.send_all(b"x" * 300_000)
    assert len(got) == 300_000


async def test_what_the_device_refuses_is_told_with_its_reason(autojump_clock: object, scene: Scene) -> None:
    async with joined() as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: scene.serve(right, judge=refuse))
        with pytest.raises(Unavailable, match="not among the allowed ports"):
            async with scene.initiated(left):
                pass
    assert [type(error) for error in scene.failures] == [TrustError]


async def test_an_initiator_that_was_not_announced_is_refused(autojump_clock: object, scene: Scene) -> None:
    announced = scene.node(scene.fleet.identity())
    async with joined() as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: scene.serve(right, expect=announced))
        with pytest.raises(P2PDistError):
            async with scene.initiated(left):
                pass
        nursery.cancel_scope.cancel()
    assert [type(error) for error in scene.failures] == [TrustError]
    assert scene.asked == []


async def test_another_device_than_the_expected_one_is_not_believed(
    autojump_clock: object, scene: Scene
) -> None:
    other = scene.node(scene.fleet.identity())
    async with joined() as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(scene.serve, right)
        with pytest.raises(TrustError, match="answers in a session with"):
            async with scene.initiated(left, expect=other):
                pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("who", ["another fleet", "expired"])
async def test_a_certificate_that_does_not_count_opens_nothing(
    autojump_clock: object, scene: Scene, who: str
) -> None:
    if who == "expired":
        identity = scene.fleet.identity(now=datetime.now(UTC) - timedelta(days=3))
    else:
        other = FleetAuthority.create(FleetName("acme"), datetime.now(UTC))
        identity = type(scene.fleet)(other).identity(ca_pem=scene.fleet.authority.certificate_pem)
    async with joined() as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(scene.serve, right)
        with pytest.raises(P2PDistError):
            async with scene.initiated(left, identity=identity) as conversation:
                await conversation.receive_some()
        nursery.cancel_scope.cancel()
    assert scene.asked == []


async def test_a_device_that_does_not_answer_is_given_up_in_time(
    autojump_clock: object, scene: Scene
) -> None:
    async with joined() as (left, _):
        begun = trio.current_time()
        with pytest.raises(Unavailable, match="did not answer"):
            async with scene.initiated(left):
                pass
        assert trio.current_time() - begun == pytest.approx(limits.SESSION_HANDSHAKE_S, abs=1)


async def test_bytes_that_were_altered_on_the_way_end_the_session(
    autojump_clock: object, scene: Scene
) -> None:
    meddling = trio.Event()

    async def forward(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        while data := bytearray(await source.receive_some(65_536)):
            if meddling.is_set():
                data[-1] ^= 1
            await sink.send_all(data)

    async with open_session() as left, open_session() as right, trio.open_nursery() as nursery:
        ours, near = trio.testing.memory_stream_pair()
        far, theirs = trio.testing.memory_stream_pair()
        left.attach(ours, "relayed")
        right.attach(theirs, "relayed")
        nursery.start_soon(forward, near, far)
        nursery.start_soon(forward, far, near)
        nursery.start_soon(scene.serve, right)
        async with scene.initiated(left) as conversation:
            await conversation.send_all(b"hello")
            assert await conversation.receive_some() == b"hello"
            meddling.set()
            await conversation.send_all(b"world")
            with pytest.raises(trio.BrokenResourceError):
                await conversation.receive_some()
        nursery.cancel_scope.cancel()


async def test_frames_out_of_place_end_the_conversation(autojump_clock: object, scene: Scene) -> None:
    async with joined() as (left, right), trio.open_nursery() as nursery:

        async def misbehave() -> None:
            async with answer(
                right,
                identity=scene.device,
                expect=scene.node(scene.operator),
                judge=accept,
                on_signal=scene.signals.append,
            ) as (_, conversation):
                await conversation._send(Accepted())
                await trio.sleep_forever()

        nursery.start_soon(misbehave)
        with pytest.raises(PeerError, match="Accepted in the middle"):
            async with scene.initiated(left) as conversation:
                await conversation.receive_some()
        nursery.cancel_scope.cancel()
