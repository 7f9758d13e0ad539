"""What failed on devices is mended there, and an operator has them try again."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_processes import Processes
from fleet_programs import DEVICES
from harness import open_fleet

RELOAD = {"kind": "file", "path": "/etc/app.conf", "reload": ["test", "-e", "mended"]}


@pytest.mark.slow
async def test_a_release_that_failed_is_installed_once_its_cause_is_mended_and_an_operator_asks(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2, form=Processes(log_book)) as fleet:
        here, away = fleet.devices
        release = fleet.signing.release("1.0", sequence=1, recipe=RELOAD)
        await fleet.publish()
        deployment = await fleet.server.deploy(release.target, DEVICES)
        await fleet.until_reported(release, "failed")
        for device in (here, away):
            assert device.installed("/etc/app.conf") is None
            (tmp_path / device.name / "root" / "mended").touch()
        await away.program.kill()
        await fleet.server.retry_deployment(deployment, [here.node, away.node])
        await fleet.until_reported(release, nodes=[here])
        assert here.installed("/etc/app.conf") == release.content
        await fleet.server.kill()
        await fleet.server.start()
        await away.program.start()
        await fleet.until_reported(release, nodes=[away])
        assert away.installed("/etc/app.conf") == release.content
