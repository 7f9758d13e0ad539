"""A distribution point with a grant that alters or repeats what it should pass on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio
from fleet_addresses import free_port
from fleet_logs import LogBook
from harness import POINTS, Fleet, Node, open_fleet

from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.net.endpoints import parse_endpoint
from p2pdist.net.link import Link, RequestHandler, open_link, serve_links
from p2pdist.node.enrol import enrol
from p2pdist.node.home import Home
from p2pdist.store.records import RefusalRecord
from p2pdist.wire.frames import AnyFrame, Arrived, Attached, MetadataVersions, Routed, Taken
from p2pdist.wire.requests import Bundle, BundleRequest, Torrent, TorrentRequest

Twist = Callable[[Routed], Sequence[Routed]]
"""What to pass on instead of one envelope."""


def honest(frame: Routed) -> Sequence[Routed]:
    """Pass on what came."""
    return [frame]


class LyingPoint:
    """Carries devices like a distribution point, and treats their envelopes as it likes.

    Attributes:
        down: What it does with envelopes for devices.
        up: What it does with envelopes for the admin server.
        passed: Every envelope that came by, downwards and upwards.
        receipts: Whether it gives receipts to devices, whatever it does with their envelopes.
        node: Its node id.
        uplink: Its link to the admin server.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.node = home.node
        self.down: Twist = honest
        self.up: Twist = honest
        self.passed: list[Routed] = []
        self.receipts = False
        self.uplink: Link
        self._devices: dict[NodeId, Link] = {}

    async def run(self, host: str, port: int, server: str, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve until cancelled."""
        server_host, server_port = parse_endpoint(server)
        async with (
            open_link(server_host, server_port, identity=self.home.tls_identity(), expect=None) as uplink,
            trio.open_nursery() as nursery,
        ):
            self.uplink = uplink
            nursery.start_soon(self._pass_down)
            await nursery.start(
                partial(
                    serve_links,
                    host=host,
                    port=port,
                    identity=self.home.tls_identity,
                    requests={
                        "/bundle": RequestHandler(BundleRequest, self._bundle),
                        "/torrent": RequestHandler(TorrentRequest, self._torrent),
                    },
                    on_link=self._carry,
                    revoked=lambda node: False,
                )
            )
            await uplink.send(Arrived(stamp=time.time_ns()))
            task_status.started()

    async def send_down(self, frame: AnyFrame) -> None:
        """Send something to every device."""
        for link in list(self._devices.values()):
            with suppress(Unavailable):  # the device has just gone
                await link.send(frame)

    async def _pass_down(self) -> None:
        async for frame in self.uplink.frames():
            if isinstance(frame, MetadataVersions):
                await self.send_down(frame)
            elif isinstance(frame, Routed):
                self.passed.append(frame)
                for twisted in self.down(frame):
                    await self.send_down(twisted)

    async def _carry(self, link: Link) -> None:
        assert link.remote is not None
        self._devices[link.remote.node] = link
        nodes = {str(link.remote.node): time.time_ns()}
        await self.uplink.send(Attached(carrier=self.node, nodes=nodes))
        came = 0
        try:
            async for frame in link.frames():
                if isinstance(frame, Routed):
                    came += 1
                    if self.receipts:
                        await link.send(Taken(count=came))
                    self.passed.append(frame)
                    for twisted in self.up(frame):
                        await self.uplink.send(twisted)
        finally:
            if self._devices.get(link.remote.node) is link:
                del self._devices[link.remote.node]

    async def _bundle(self, link: Link, request: BundleRequest) -> Bundle:
        return await self.uplink.request("/bundle", BundleRequest(have=request.have), Bundle)

    async def _torrent(self, link: Link, request: TorrentRequest) -> Torrent:
        return await self.uplink.request("/torrent", request, Torrent)


@asynccontextmanager
async def behind_a_liar(directory: Path, log: LogBook) -> AsyncIterator[tuple[Fleet, Node, LyingPoint]]:
    """Open a fleet with one device, which is attached to a lying point."""
    async with (
        open_fleet(directory, log, points=0, devices=1) as fleet,
        open_lying_point(fleet) as liar,
    ):
        yield fleet, fleet.devices[0], liar


async def until_refusals(fleet: Fleet, device: Node, count: int) -> list[RefusalRecord]:
    """Wait until the admin server has so many refusals of a device, and return them."""

    async def there() -> bool:
        return len(await fleet.refusals(who=device)) == count

    await fleet.until(there, f"the admin server has {count} refusals of {device.name}")
    return await fleet.refusals(who=device)


@asynccontextmanager
async def open_lying_point(fleet: Fleet) -> AsyncIterator[LyingPoint]:
    """Enrol a lying point, sign its grant, and have every device of *fleet* attach to it."""
    token = await fleet.server.make_token(POINTS)
    home = await enrol(fleet.directory / "liar", fleet.bundle, token, name="liar", machine="liar")
    host = fleet.next_host()
    port = free_port(host)
    point = LyingPoint(home)
    async with trio.open_nursery() as nursery:
        await nursery.start(point.run, host, port, fleet.bundle.addresses[0])
        fleet.signing.grant(point.node, [f"{host}:{port}"])
        await fleet.publish()
        for device in fleet.devices:
            await fleet.until_linked(device, "point")
        yield point
        nursery.cancel_scope.cancel()
