"""Work that installs agents, up to where the first machine would be reached."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from standin import make_agent

from p2pdist.core.mirrored import Chosen
from p2pdist.duties.deploy import installing
from p2pdist.duties.deploy.task import install_agents
from p2pdist.duties.repository import Place
from p2pdist.duties.run import RunPort
from p2pdist.errors import P2PDistError, TrustError, UsageError
from p2pdist.ids import ChannelName, FleetName, InfoHash, NodeId, ProductName, SwarmName, TargetPath
from p2pdist.swarm.session import Artifact
from p2pdist.trust.catalog import FileRecipe, Release
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.secrets import seal_secrets
from p2pdist.wire.installing import Install, InstallHost, InstallSecrets
from p2pdist.wire.questions import TaskSecrets
from p2pdist.wire.tasks import Assignment
from p2pdist.wire.work import encode_work

KEY = IdentityKey.generate()
WORK = Install(hosts=[InstallHost(id="a", address="127.0.0.1")], target="stable/agent/1/agent")


class Stock:
    """A node's content: the agent, and nothing else."""

    def __init__(self, directory: Path, *, signed: bool = True) -> None:
        self.package, _ = make_agent(directory)
        self.releases = (self._release(),) if signed else ()
        self.addresses: tuple[str, ...] = ()

    def _release(self) -> Release:
        return Release(
            target=TargetPath(WORK.target), channel=ChannelName("stable"), product=ProductName("agent"),
            version="1", sequence=1, platform=self.package.platform, length=self.package.length,
            sha256=self.package.sha256, info_hash=InfoHash("0" * 64), recipe=FileRecipe(path="/opt/agent"),
        )  # fmt: skip

    async def choose(self, targets: Iterable[str]) -> Chosen:
        return Chosen(self.releases, () if self.releases else tuple(targets))

    def bundle(self) -> EnrolmentBundle:
        return EnrolmentBundle(
            fleet=FleetName("acme"), ca_pem=b"", root=b"", server_node=NodeId("a" * 32), server_public=b"",
            addresses=self.addresses,
        )  # fmt: skip

    @asynccontextmanager
    async def open(self, release: Release) -> AsyncIterator[Place]:
        yield Place(
            Artifact(
                info_hash=release.info_hash, torrent=b"", path=Path(self.package.path),
                swarm=SwarmName("stable.acme"), length=release.length, sealed=True,
            ),
            True,
        )  # fmt: skip


async def refused(stock: Stock) -> P2PDistError:
    """Do the work; return why it is not done."""
    packed = encode_work(WORK)
    box = seal_secrets(InstallSecrets(), work=packed, public=KEY.public, expires=int(time.time()) + 60)

    async def say(message: Any) -> bool:
        port.answered(TaskSecrets(task="t", run=1, box=box))
        return True

    async def room() -> None:
        """There is always some."""

    assignment = Assignment(task="t", run=1, not_after=0, work=packed)
    port = RunPort(assignment, say=say, room=room, add=lambda items: None, key=KEY)
    with pytest.raises(P2PDistError) as caught:
        await install_agents(WORK, port, stock)  # type: ignore[arg-type]  # as much of it as is needed
    return caught.value


@pytest.fixture(autouse=True)
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine is to be reached here."""
    monkeypatch.setattr(installing, "_COMMAND", ("/nonexistent",))


async def test_an_agent_that_was_altered_on_the_nodes_disk_goes_nowhere(tmp_path: Path) -> None:
    stock = Stock(tmp_path)
    path = Path(stock.package.path)
    path.write_bytes(path.read_bytes().replace(b"echo", b"evil"))
    stock.addresses = ("10.0.0.1:7601",)
    error = await refused(stock)
    assert isinstance(error, TrustError) and "not what was signed" in str(error)


async def test_what_is_not_signed_is_not_installed(tmp_path: Path) -> None:
    error = await refused(Stock(tmp_path, signed=False))
    assert isinstance(error, UsageError) and "no signed release" in str(error)


async def test_devices_that_would_not_find_the_fleet_are_not_made(tmp_path: Path) -> None:
    error = await refused(Stock(tmp_path))
    assert isinstance(error, UsageError) and "--address" in str(error)
