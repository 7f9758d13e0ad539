"""Workers that do not work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio
from standin import BUNDLE, make_agent

from p2pdist.core.installation import InstallationSettings
from p2pdist.duties.deploy import installing
from p2pdist.duties.deploy.installing import HostState, Order, install
from p2pdist.duties.deploy.protocol import Credentials, Host
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId

GARBAGE = "import sys, time; sys.stdout.buffer.write(b'\\xff' * 64); sys.stdout.flush(); sys.stdin.read()"
WORKERS = {
    "cannot be started": ("/nothing/there",),
    "ends at once": ("false",),
    "says something else": (sys.executable, "-c", GARBAGE),
}


@pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS.keys())
async def test_a_worker_that_does_not_work_is_given_up(
    worker: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "_COMMAND", worker)
    package, _ = make_agent(tmp_path)
    order = Order(
        hosts=[Host(id="a", address="192.0.2.7")],
        credentials=Credentials(user="root"),
        package=package,
        bundle=BUNDLE,
        settings=InstallationSettings(),
    )

    async def tell(state: HostState) -> None:
        pass

    async def reported(node: NodeId) -> None:
        raise AssertionError(node)

    with trio.fail_after(30), pytest.raises(Unavailable, match="worker"):
        await install(order, tell=tell, reported=reported)
