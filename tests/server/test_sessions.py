"""What the admin server writes down of operators' sessions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from serverkit import enrolled_device, next_frame, open_fleet

from p2pdist.ids import FleetName
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire import api as wire
from p2pdist.wire.frames import MetadataVersions

pytestmark = pytest.mark.slow  # a whole server


def new_session() -> wire.NewSession:
    authority = FleetAuthority.create(FleetName("session"), datetime.now(UTC))
    return wire.NewSession(
        authority=authority.certificate_pem.decode(),
        initiator=IdentityKey.generate().node,
        purpose="tunnel to port 22",
    )


async def test_each_use_of_a_session_is_written_down_and_of_no_session_is_refused(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        device = await enrolled_device(fleet)
        async with device.attached() as link:
            await next_frame(link.frames(), MetadataVersions)
            path = f"/devices/{device.node}/sessions"
            info = await fleet.operator.ask("POST", path, wire.SessionInfo, new_session())
            use, uses = wire.SessionUse(purpose="connection to port 22"), f"/sessions/{info.session}/uses"
            for _ in range(2):
                await fleet.operator.ask("POST", uses, wire.Done, use)
            unknown = await fleet.operator.problem("POST", f"/sessions/{'0' * 32}/uses", use)
            assert "no such session" in unknown.detail
        log = await fleet.operator.ask("GET", "/audit", wire.AuditList, limit=3)
        assert [(each.action, each.detail) for each in log.entries] == [
            ("session.use", "connection to port 22"),
            ("session.use", "connection to port 22"),
            ("session.announce", "tunnel to port 22"),
        ]
