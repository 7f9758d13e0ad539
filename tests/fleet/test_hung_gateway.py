"""A gateway with so many devices that each may seldom ask it for a sign of life, and that hangs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from fleet_logs import LogBook
from fleet_supervision import SupervisedPoints, SupervisedProgram
from harness import GROUP, Fleet, Node, open_fleet

from p2pdist import limits
from p2pdist.core.pace import pace_s
from p2pdist.net.endpoints import parse_endpoint
from p2pdist.net.link import Link, open_link
from p2pdist.net.tls import TlsIdentity
from p2pdist.trust.keys import IdentityKey

pytestmark = pytest.mark.slow  # real programs, and a crowd

CROWD = round(limits.LINK_PACES_S[0] * limits.LINK_PACE_ASKED_PER_S) + 1
SLOW_S = pace_s(CROWD, limits.LINK_PACES_S[0])
AT_ONCE = 32
CROWD_S = 60.0


@asynccontextmanager
async def crowd(fleet: Fleet, gateway: Node) -> AsyncIterator[None]:
    """So many links of devices with the gateway that it says a slower pace, to them and to everybody."""
    host, port = parse_endpoint(gateway.address)
    turns, links = trio.Semaphore(AT_ONCE), list[Link]()

    async def attach() -> None:
        identity = make_identity(fleet)
        await turns.acquire()
        async with open_link(host, port, identity=identity, expect=gateway.node) as link:
            turns.release()
            links.append(link)
            await link.wait_ended()

    async with trio.open_nursery() as nursery:
        for _ in range(CROWD):
            nursery.start_soon(attach)
        await fleet.until(
            lambda: len(links) == CROWD and all(told(link) == SLOW_S for link in links),
            f"{CROWD} devices may ask every {SLOW_S:g} s",
            patience_s=CROWD_S,
        )
        yield


def make_identity(fleet: Fleet) -> TlsIdentity:
    key, authority = IdentityKey.generate(), fleet.server_home.authority
    pem = authority.issue(key.public, group=GROUP, swarms=[], life_s=3_600, now=datetime.now(UTC))
    return TlsIdentity(certificate_pem=pem, key_pem=key.private_pem(), ca_pem=authority.certificate_pem)


def told(link: Link) -> float:
    return link._carrier._silence._pace_s


async def test_idle_devices_of_a_full_gateway_whose_process_hangs_are_with_another_within_ten_seconds(
    tmp_path: Path, log_book: LogBook
) -> None:
    form = SupervisedPoints(log_book)
    async with open_fleet(tmp_path, log_book, points=2, devices=2, form=form) as fleet:
        lost = fleet.carrier(fleet.devices[0])
        assert lost is not None and isinstance(lost.program, SupervisedProgram)
        (other,) = [point for point in fleet.points if point is not lost]
        idle = [device for device in fleet.devices if fleet.carrier(device) is lost]
        async with crowd(fleet, lost):
            assert not lost.program.hung, "so many are not taken for a hang"
            lost.program.freeze()
            frozen = trio.current_time()
            for device in idle:
                await fleet.until(
                    lambda device=device: fleet.carrier(device) is other,
                    f"{device.name} is carried by the other gateway",
                    patience_s=frozen + limits.LINK_LOST_S - trio.current_time(),
                )
        ends = [line for line in log_book.find("link.broken") if "nothing was heard" in line["reason"]]
        assert not ends, "they did not have to find out by themselves"
        await fleet.until(lambda: len(log_book.find("seed.running", who=lost.name)) == 2, "it is back")
        assert lost.program.hung == 1
        release = await fleet.release()
        await fleet.until_reported(release)
