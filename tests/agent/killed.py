"""A device's deployer as a program that is really killed: run by test_kill.py.

Each line of input is a request; a forked child runs the deployer over the device's directory until all
its deployments have ended and are confirmed, or until it ends itself with SIGKILL right before one of
the operations that Python reports to audit hooks.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))

from killing import Countdown, in_child

from p2pdist.agent.deployer import Deployer, DeployerSettings, open_deployer
from p2pdist.agent.ports import ContentStatus
from p2pdist.files import write_atomic
from p2pdist.ids import ChannelName, FleetName, InfoHash, swarm_of
from p2pdist.install.installers import InstallLayout
from p2pdist.install.platform import Machine
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.wire.messages import Deployment, DesiredState, Progress, Refusal, Report

COUNTED = (
    "open",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "sqlite3.connect",
)
FLEET = FleetName("acme")


class Request(msgspec.Struct, kw_only=True):
    """A device, what it should install, and when to die (0: not at all)."""

    device: str
    artifacts: str
    releases: list[Release]
    kill_at: int = 0


class Content:
    """Artifacts that are there already."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def want(self, release: Release) -> None:
        """Nothing needs to be done."""

    async def unwant(self, info_hash: InfoHash, *, delete: bool) -> None:
        """They stay for the next device."""

    def status(self, info_hash: InfoHash) -> ContentStatus | None:
        """Everything is complete."""
        return ContentStatus(fraction=1.0, complete=True, rate_bytes_per_s=0, sources=1)

    def path(self, info_hash: InfoHash) -> Path:
        """By info-hash."""
        return self.directory / info_hash


class Server:
    """An admin server that writes reports down and confirms them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.deployer: Deployer | None = None
        self.heard = trio.Event()

    async def send(self, message: Report | Refusal | Progress) -> bool:
        """Confirm what is written down."""
        if isinstance(message, Report):
            write_atomic(self.directory / message.id, msgspec.json.encode(message))
            assert self.deployer is not None
            self.deployer.received([message.id])
        self.heard.set()
        return True

    def renew_certificate(self) -> None:
        """It names the swarm already."""


async def work(request: Request) -> None:
    """Run the deployer until nothing is left to do."""
    device = Path(request.device)
    server = Server(device / "server")
    settings = DeployerSettings(
        fleet=FLEET,
        layout=InstallLayout(root=device / "root", state=device / "installers"),
        machine=Machine(platform="linux-x86_64"),
        status_every_s=0.01,
    )
    content = Content(Path(request.artifacts))
    async with open_deployer(settings, device / "journal", content=content, outbox=server) as deployer:
        server.deployer = deployer
        deployer.certificate_changed([swarm_of(ChannelName("stable"), FLEET)])
        deployments = [
            Deployment(id=f"d-{r.product}-{r.sequence}", target=r.target) for r in request.releases
        ]
        deployer.state_changed(
            DesiredState(revision=1, group="/", swarms=[], deployments=deployments),
            Catalog(
                releases={r.target: r for r in request.releases},
                grants={},
                channels=(),
                versions={},
                expires=0,
            ),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deployer.run)
            while not all(task.ended for task in deployer.tasks()) or deployer.unconfirmed():
                server.heard = trio.Event()
                await server.heard.wait()
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


def child(request: Request, answer: int) -> None:
    """Work, and write to the descriptor *answer* how many operations it took."""
    countdown = Countdown(request.kill_at)
    countdown.watch(COUNTED)
    trio.run(partial(work, request))
    os.write(answer, json.dumps({"operations": countdown.count}).encode())


def main() -> None:
    """Serve requests until the input ends."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # output is for answers
    for line in sys.stdin:
        request = msgspec.json.decode(line, type=Request)
        (Path(request.device) / "server").mkdir(parents=True, exist_ok=True)
        said, code = in_child(partial(child, request))
        print(said.decode() or json.dumps({"killed": code < 0}), flush=True)


if __name__ == "__main__":
    main()
