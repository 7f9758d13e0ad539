"""Other rate limits while the server runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio
from serverkit import PATIENCE_S, enrolled_device, open_fleet

from p2pdist.config import load_config
from p2pdist.errors import UsageError
from p2pdist.server import reload
from p2pdist.server.config import ServerConfig
from p2pdist.wire import api as wire
from p2pdist.wire.messages import DesiredState

NEEDED = """\
server.data = "."
link.addresses = ["127.0.0.1:7601"]
online = {key = "online.key", passphrase_file = "passphrase"}
"""


class Heard:
    """A log that says when something was complained about."""

    def __init__(self) -> None:
        self.error_logged = trio.Event()

    def error(self, event: str, **fields: object) -> None:
        self.error_logged.set()

    def info(self, event: str, **fields: object) -> None:
        pass


async def test_a_hangup_signal_makes_other_limits_count_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, log = tmp_path / "server.toml", Heard()
    monkeypatch.setattr(reload, "_log", log)
    async with open_fleet(tmp_path) as fleet, trio.open_nursery() as nursery:
        await fleet.operator.ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path="/emea"))
        device = await enrolled_device(fleet, "/emea")
        await nursery.start(reload.reload_on_hangup, config, fleet.service)
        async with device.attached() as link:
            frames = link.frames()
            await device.send(link, device.heartbeat())
            assert (await device.next_message(frames, DesiredState)).rates.windows == []
            config.write_text(NEEDED + '[[rates]]\ngroup = "/emea"\nwindows = ["at night"]\n')
            os.kill(os.getpid(), signal.SIGHUP)
            with trio.fail_after(PATIENCE_S):
                await log.error_logged.wait()
            config.write_text(NEEDED + '[[rates]]\ngroup = "/emea"\nwindows = ["22:00-06:00 site=7"]\n')
            os.kill(os.getpid(), signal.SIGHUP)
            told = await device.next_message(frames, DesiredState)
            assert told.rates.windows == ["22:00-06:00 site=7"]
        nursery.cancel_scope.cancel()


def test_the_origins_limits_have_windows_for_the_wan_alone(tmp_path: Path) -> None:
    config = tmp_path / "server.toml"
    config.write_text(NEEDED + '[origin]\nup_bytes_per_s = 9\nwindows = ["08:00-18:00 wan=7"]\n')
    rates = load_config(config, ServerConfig, {}).service_settings().origin.rates
    assert (rates.wan_up, rates.windows) == (9, ["08:00-18:00 wan=7"])
    config.write_text(NEEDED + '[origin]\nwindows = ["08:00-18:00 wan=7 site=7"]\n')
    with pytest.raises(UsageError, match="origin") as refused:
        load_config(config, ServerConfig, {}).service_settings()
    assert "site=" in refused.value.hint
