"""A gateway that disappears in the middle of everything: content, a session and mail, all at once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from fleet_links import link_as
from fleet_logs import LogBook
from fleet_processes import Processes, ProcessProgram, reaching_server
from fleet_programs import DEVICES, ServerOptions
from fleet_signing import SignedRelease
from harness import Fleet, Node, open_fleet

from p2pdist.cli.visit import Visitor
from p2pdist.errors import P2PDistError
from p2pdist.net.multiplex import open_multiplex
from p2pdist.node.home import Home
from p2pdist.node.mail import Mail
from p2pdist.node.post import OwnPost
from p2pdist.wire.frames import Taken
from p2pdist.wire.messages import Refusal
from p2pdist.wire.services import TUNNEL_PATH, Tunnel, TunnelOpening
from tests.answering import answering_server

pytestmark = pytest.mark.slow  # whole fleets as processes

GATEWAY = ("seed", "gateway")
SLOW_SITE = ServerOptions(point_up_bytes_per_s=800_000)
SIZE = 2_500_000
LOST_FOR_S_MAX = 10.0
SMALL_RELEASES = 3  # that are ordered while the gateway is lost
BLOCK = 1_000
PAUSE_S = 0.02


class Talk:
    """A session in which this side says one block after the other, and hears each again."""

    def __init__(self, tunnel: trio.abc.HalfCloseableStream) -> None:
        self._tunnel = tunnel
        self._enough = False
        self.said = self.heard = 0

    async def say(self) -> None:
        """Go on until there is :meth:`enough`: a block that has begun is said to its end."""
        while not self._enough:
            self.said += 1
            await self._tunnel.send_all(self._block(self.said))
            await trio.sleep(PAUSE_S)

    def enough(self) -> None:
        """Say nothing new."""
        self._enough = True

    async def hear(self) -> None:
        """Fail as soon as something is missing, doubled or altered."""
        pending = b""
        async for data in self._tunnel:
            pending += data
            while len(pending) >= BLOCK:
                assert pending[:BLOCK] == self._block(self.heard + 1)
                pending, self.heard = pending[BLOCK:], self.heard + 1

    @staticmethod
    def _block(number: int) -> bytes:
        return number.to_bytes(8, "big") * (BLOCK // 8)


class Talker:
    """A device that says one thing after the other to the admin server, and keeps it until it is taken."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._mail = Mail(Home.open(node.home))
        self._post = OwnPost()
        self.said: list[str] = []

    async def attach(self, gateways: Sequence[Node]) -> None:
        """Be carried by the first, and when that is lost by the next, until cancelled."""
        for gateway in gateways:
            with suppress(P2PDistError):
                async with link_as(self._node, gateway.address) as link, link.awaiting():
                    self._post.linked(gateway.node, link)
                    async for frame in link.frames():
                        if isinstance(frame, Taken):
                            self._post.taken(frame)
            self._post.unlinked()

    async def talk(self) -> None:
        """Go on until cancelled. Between two links, and while too much is not taken, it waits."""
        while True:
            now = int(time.time())
            refusal = Refusal(id=f"r{len(self.said)}", kind="stranger", subject="x", reason="y", at=now)
            with suppress(P2PDistError):
                self._post.send(await self._mail.seal(refusal, now=now))
                self.said.append(refusal.id)
            await trio.sleep(PAUSE_S)


@asynccontextmanager
async def site_with_two_gateways(directory: Path, log: LogBook) -> AsyncIterator[tuple[Fleet, Visitor]]:
    """Two gateways of one scope, three devices behind them, and an operator who reaches a device's port."""
    async with (
        answering_server(lambda data: data) as port,
        open_fleet(
            directory,
            log,
            points=0,
            devices=0,
            form=Processes(log),
            options=SLOW_SITE,
            tunnel_ports=[port],
        ) as fleet,
    ):
        for _ in range(2):
            await fleet.add_point(duties=GATEWAY)
        await fleet.publish()
        for _ in range(3):
            await fleet.add_device()
        for device in fleet.devices:
            await fleet.until_linked(device, "point")
        server = await reaching_server(fleet)
        yield fleet, Visitor(server.target("operator"), hosts=["127.0.0.1"])


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_gateway_lost_in_the_middle_of_everything_costs_ten_seconds_and_nothing_is_lost_or_doubled(
    tmp_path: Path, log_book: LogBook, how: str
) -> None:
    async with site_with_two_gateways(tmp_path, log_book) as (fleet, operator):
        port = fleet.tunnel_ports[0]
        visited = fleet.devices[0]
        lost = fleet.carrier(visited)
        assert lost is not None
        (other,) = [point for point in fleet.points if point is not lost]
        talker = Talker(await fleet.add_device(start=False))
        fleet.devices.pop()

        release = await fleet.release(size=SIZE)
        async with (
            operator.visit(visited.name, Tunnel(port=port)) as visit,
            open_multiplex(visit.conversation, dialler=True, peer=visited.name) as many,
            many.open_stream(TUNNEL_PATH, TunnelOpening()) as tunnel,
            trio.open_nursery() as nursery,
        ):
            talk = Talk(tunnel)
            async with trio.open_nursery() as talking:
                nursery.start_soon(talk.hear)
                nursery.start_soon(talk.say)
                talking.start_soon(talker.talk)
                nursery.start_soon(talker.attach, [lost, other])
                await fleet.until(lambda: talk.heard and talker.said, "everybody talks")
                for point in fleet.points:
                    await fleet.until(lambda p=point: p.has_artifact(release), "the gateways have all of it")
                assert visited.held_bytes(release) < SIZE, "content is on its way"

                await lose(lost, how)
                gone, said = trio.current_time(), talk.said
                small = await order_small_ones(fleet)
                await fleet.until(
                    lambda: talk.heard > said,
                    "the session goes on",
                    patience_s=gone + LOST_FOR_S_MAX - trio.current_time(),
                )
                for device in fleet.devices:
                    await fleet.until(
                        lambda device=device: fleet.carrier(device) is other,
                        f"{device.name} is carried by the other gateway",
                        patience_s=gone + LOST_FOR_S_MAX - trio.current_time(),
                    )
                for each in (release, *small):
                    await fleet.until_reported(each)
                talking.cancel_scope.cancel()
            talk.enough()
            await fleet.until(lambda: talk.heard == talk.said, "all of the session's bytes are back")

            await come_back(lost, how)  # what it has on its disk is still to be passed on
            await fleet.until(lambda: heard_once(fleet, talker), "the server has heard everything once")
            nursery.cancel_scope.cancel()
        for each in (release, *small):
            installed = log_book.find("release.installed", target=each.target)
            assert sorted(line["who"] for line in installed) == [device.name for device in fleet.devices]
        assert not await fleet.refusals(kind="envelope")
        assert (await fleet.received(release))["device", "origin"] == 0


async def order_small_ones(fleet: Fleet) -> list[SignedRelease]:
    releases = [
        fleet.signing.release("1.0", sequence=1, product=f"p{n}", place=f"/opt/p{n}.bin", size=10_000)
        for n in range(SMALL_RELEASES)
    ]
    await fleet.publish()
    for release in releases:
        await fleet.server.deploy(release.target, DEVICES)
    return releases


async def heard_once(fleet: Fleet, talker: Talker) -> bool:
    heard = await fleet.refusals(kind="stranger")
    assert all(refusal.times == 1 for refusal in heard)
    return len(heard) == len(talker.said)


async def lose(point: Node, how: str) -> None:
    assert isinstance(point.program, ProcessProgram)
    if how == "killed":
        await point.program.kill()
    else:
        point.program.freeze()


async def come_back(point: Node, how: str) -> None:
    assert isinstance(point.program, ProcessProgram)
    if how == "killed":
        await point.program.start()
    else:
        point.program.thaw()
