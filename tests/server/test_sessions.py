"""What the admin server writes down of operators' sessions, and tells the devices."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from serverkit import enrolled_device, next_frame, open_fleet

from p2pdist.ids import FleetName
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire import api as wire
from p2pdist.wire.frames import MetadataVersions
from p2pdist.wire.messages import SessionInvite
from p2pdist.wire.services import Echo, Service, Tunnel

pytestmark = pytest.mark.slow  # a whole server


def new_session(service: Service) -> wire.NewSession:
    authority = FleetAuthority.create(FleetName("session"), datetime.now(UTC))
    return wire.NewSession(
        authority=authority.certificate_pem.decode(),
        initiator=IdentityKey.generate().node,
        service=service,
    )


@pytest.mark.parametrize(
    ("service", "words"),
    [(Tunnel(port=22), "tunnel to port 22 of laptop"), (Echo(), "ping of laptop")],
)
async def test_what_the_device_is_told_of_a_session_is_what_the_audit_log_says(
    tmp_path: Path, service: Service, words: str
) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            frames = link.frames()
            await next_frame(frames, MetadataVersions)
            asked = new_session(service)
            info = await fleet.operator.ask(
                "POST", f"/devices/{device.node}/sessions", wire.SessionInfo, asked
            )
            invite = await device.next_message(frames, SessionInvite)
        log = await fleet.operator.ask("GET", "/audit", wire.AuditList, limit=1)
    assert (invite.session, invite.initiator, invite.service) == (info.session, asked.initiator, service)
    (entry,) = log.entries
    assert (entry.action, entry.subject) == ("session.announce", f"{device.node} laptop")
    assert entry.detail == words


@pytest.mark.parametrize(
    "service",
    [None, {"service": "tunnel"}, {"service": "tunnel", "port": 0}, {"service": "shell"}, "ping"],
    ids=["none", "no port", "no such port", "no such service", "text"],
)
async def test_a_session_for_no_known_service_is_refused_and_not_announced(
    tmp_path: Path, service: object
) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        body = {**msgspec.to_builtins(new_session(Echo())), "service": service}
        problem = await fleet.operator.problem(
            "POST", f"/devices/{device.node}/sessions", msgspec.json.encode(body)
        )
        log = await fleet.operator.ask("GET", "/audit", wire.AuditList, limit=10)
    assert problem.status == 400 and "NewSession" in problem.detail
    assert not [entry for entry in log.entries if entry.action.startswith("session.")]


async def test_each_connection_through_a_tunnel_is_written_down_and_of_no_tunnel_is_refused(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            await next_frame(link.frames(), MetadataVersions)
            sessions = f"/devices/{device.node}/sessions"
            ping = await fleet.operator.ask("POST", sessions, wire.SessionInfo, new_session(Echo()))
            info = await fleet.operator.ask("POST", sessions, wire.SessionInfo, new_session(Tunnel(port=22)))
            for _ in range(2):
                await fleet.operator.ask("POST", f"/sessions/{info.session}/connections", wire.Done)
            for session, reason in ((ping.session, "no tunnel"), ("0" * 32, "no such session")):
                problem = await fleet.operator.problem("POST", f"/sessions/{session}/connections")
                assert reason in problem.detail
        log = await fleet.operator.ask("GET", "/audit", wire.AuditList, limit=3)
        assert [(each.action, each.detail) for each in log.entries] == [
            ("session.connect", "connection to port 22 of laptop"),
            ("session.connect", "connection to port 22 of laptop"),
            ("session.announce", "tunnel to port 22 of laptop"),
        ]
