"""Who does not belong: other certificates, and nodes that claim to be distribution points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from fleet_links import link_as
from fleet_logs import LogBook
from fleet_signing import CHANNEL, FLEET, SignedRelease
from harness import Fleet, Node, open_fleet

from p2pdist.errors import P2PDistError
from p2pdist.ids import GroupPath, SwarmName, swarm_of
from p2pdist.net.endpoints import parse_endpoint
from p2pdist.net.link import open_link
from p2pdist.net.tls import TlsIdentity
from p2pdist.node.home import Home
from p2pdist.swarm.session import Artifact, Source, Swarm, SwarmSettings, open_swarm
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.frames import Attached, Candidate, Sources

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset

SWARM = swarm_of(CHANNEL, FLEET)


class Stranger:
    """A node with a certificate that does not admit it."""

    def __init__(self, fleet: Fleet, authority: FleetAuthority, swarms: Sequence[SwarmName]) -> None:
        self.fleet = fleet
        self.key = IdentityKey.generate()
        self.host = fleet.next_host()
        self.certificate_pem = authority.issue(
            self.key.public,
            group=GroupPath("/emea/berlin"),
            swarms=swarms,
            life_s=3_600,
            now=datetime.now(UTC),
        )

    def tls_identity(self) -> TlsIdentity:
        return TlsIdentity(
            certificate_pem=self.certificate_pem,
            key_pem=self.key.private_pem(),
            ca_pem=self.fleet.bundle.ca_pem,
        )

    async def fetch(self, swarm: Swarm, release: SignedRelease, source: Node) -> None:
        """Join the swarm of a release, and dial a node that has all of it."""
        await swarm.add(
            Artifact(
                info_hash=release.info_hash,
                torrent=Home.open(source.home).torrent(release.info_hash).read_bytes(),
                path=self.fleet.directory / "stolen",
                swarm=SWARM,
                length=len(release.content),
            )
        )
        source_swarm = Source(
            node=source.node, role="point", host=source.host, port=source.agent.member.swarm.port
        )
        swarm.set_sources(release.info_hash, [source_swarm])

    def settings(self) -> SwarmSettings:
        return SwarmSettings(
            role="device",
            node=self.key.node,
            host=self.host,
            port=0,
            ca_pem=self.fleet.bundle.ca_pem,
            certificate_pem=self.certificate_pem,
            key_pem=self.key.private_pem(),
        )


def of_another_fleet(fleet: Fleet) -> Stranger:
    return Stranger(fleet, FleetAuthority.create(FLEET, datetime.now(UTC)), [SWARM])


def of_no_swarm(fleet: Fleet) -> Stranger:
    other = SwarmName(f"other.{FLEET}.swarm.p2pdist.internal")
    return Stranger(fleet, fleet.server_home.authority, [other])


@pytest.mark.parametrize("make", [of_another_fleet, of_no_swarm], ids=["another CA", "another swarm"])
async def test_a_stranger_gets_no_byte_of_content_and_the_point_reports_it(
    tmp_path: Path, log_book: LogBook, make: Callable[[Fleet], Stranger]
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (point,) = fleet.points
        release = await fleet.release()
        await fleet.until_reported(release)
        stranger = make(fleet)
        async with open_swarm(stranger.settings()) as swarm:
            await stranger.fetch(swarm, release, point)

            async def reported() -> bool:
                records = await fleet.refusals(who=point, kind="stranger")
                return any(stranger.host in record.subject for record in records)

            await fleet.until(reported, "the point reports the stranger")
            assert swarm.statistics(release.info_hash).bytes_done == 0


async def test_a_certificate_of_another_authority_gets_no_link_to_server_or_point(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=0) as fleet:
        stranger = of_another_fleet(fleet)
        for address in (fleet.bundle.addresses[0], fleet.points[0].address):
            with pytest.raises(P2PDistError), trio.fail_after(20):
                await use_link(address, stranger.tls_identity())


async def test_a_certificate_of_the_fleets_authority_for_a_node_that_never_enrolled_gets_no_link(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0) as fleet:
        with pytest.raises(P2PDistError, match="not enrolled"), trio.fail_after(20):
            await use_link(fleet.bundle.addresses[0], of_no_swarm(fleet).tls_identity())


async def test_a_point_without_a_grant_is_refused_by_the_devices_that_it_invites(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=1) as fleet:
        (device,) = fleet.devices
        release = await fleet.release()
        await fleet.until_reported(release)
        impostor = await fleet.add_device(start=False)
        member = device.agent.member
        claim = Candidate(
            node=impostor.node, role="point", host=impostor.host, port=1, taken=True, reason="it says so"
        )
        member.content.set_sources(Sources(info_hash=release.info_hash, candidates=[claim]))
        report = member.content.report(release.info_hash)
        assert report is not None
        (judged,) = report.candidates
        assert not judged.taken
        assert "without a valid seed grant" in judged.reason


async def test_a_node_without_a_grant_that_says_whom_it_carries_is_not_believed(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (device,) = fleet.devices
        impostor = await fleet.add_device(start=False)
        async with link_as(impostor, fleet.bundle.addresses[0]) as link:
            await link.send(Attached(carrier=impostor.node, nodes={device.node: 1}))
            await fleet.until_logged("attached.refused")
            release = await fleet.release()
            await fleet.until_reported(release, nodes=[device])


async def test_a_device_leaves_a_point_whose_grant_was_withdrawn(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (point,), (device,) = fleet.points, fleet.devices
        del fleet.signing.workshop.targets["points"].targets[f"points/{point.node}.grant"]
        fleet.signing.workshop.sign(bump=("points",))
        await fleet.publish()
        await fleet.until_linked(device, "server")
        release = await fleet.release()
        await fleet.until_reported(release)
        assert (await fleet.received(release))["device", "point"] == 0


async def test_a_point_refuses_a_device_outside_its_scope(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, devices=0) as fleet:
        await fleet.server.add_group(GroupPath("/asia"))
        foreign = await fleet.add_device(group=GroupPath("/asia"), start=False)
        identity = Home.open(foreign.home).tls_identity()
        with pytest.raises(P2PDistError, match="outside the scope"), trio.fail_after(20):
            await use_link(fleet.points[0].address, identity)


async def use_link(address: str, identity: TlsIdentity) -> None:
    """Use a link until the other side ends it; raises why it did."""
    host, port = parse_endpoint(address)
    async with open_link(host, port, identity=identity, expect=None) as link:
        async for _ in link.frames():
            pass
        await link.send(Attached(carrier=link.remote.node, nodes={}))
