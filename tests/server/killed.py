"""An admin server that is really killed while it starts and publishes: run by test_killed_publishing.py.

Each line of input is a request; a forked child opens the server over its directory, publishes, and ends
itself with SIGKILL right before one of the changes that it makes to the disk: files opened for writing,
renamed and removed, as Python reports them to audit hooks, and transactions that are committed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
import structlog
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from killing import in_child
from serverkit import signer

from p2pdist.ids import InfoHash
from p2pdist.server.control.ports import PlaneSettings
from p2pdist.server.origin import OriginSettings
from p2pdist.server.serverhome import ServerHome
from p2pdist.server.service import Service, ServiceSettings, open_service
from p2pdist.store import content
from p2pdist.store.fleetstore import FleetStore
from p2pdist.trust.catalog import Catalog

SCRATCH = "/metadata/ingest-"  # thrown away at the next start, whatever is in it
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree")


class Request(msgspec.Struct, kw_only=True):
    """A server's directory, what it publishes, and when to die (0: not at all).

    ``torrents_last`` plants a defect: torrents are written after the metadata that names them.
    """

    server: str
    metadata: dict[str, bytes]
    torrents: dict[str, bytes]
    kill_at: int = 0
    torrents_last: bool = False


def plant_torrents_last() -> None:
    """Publish as after a careless change."""
    right = Service._ingest

    def wrong(
        service: Service, metadata: Mapping[str, bytes], torrents: Mapping[InfoHash, bytes], mirrored: bool
    ) -> Catalog:
        service.repository.ingest(metadata, now=datetime.now(UTC))
        return right(service, metadata, torrents, mirrored)

    Service._ingest = wrong  # type: ignore[method-assign]


def child(request: Request, answer: int) -> None:
    """Start and publish; write what was changed on the disk, in order, to the descriptor *answer*."""
    numbers, writing = count(1), threading.RLock()

    def change(what: str) -> None:
        with writing:  # several threads are here: what has a number before this one has been written
            number = next(numbers)
            os.write(answer, json.dumps(what).encode() + b"\n")
            if number == request.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        path = str(arguments[0]) if arguments else ""
        where = path.removeprefix(request.server) if path.startswith(request.server) else ""
        if (writes or event in CHANGES) and where and not where.startswith(SCRATCH):
            change(f"{event} {where}")

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    sys.addaudithook(hook)
    sa.event.listen(sa.Engine, "commit", lambda connection: change("commit"))
    if request.torrents_last:
        plant_torrents_last()
    trio.run(publish, request)


async def publish(request: Request) -> None:
    """As `p2pdist-server run` and `POST /publications` do."""
    home = ServerHome(Path(request.server))
    store = FleetStore.open(f"sqlite:///{home.root / 'fleet.db'}")
    settings = ServiceSettings(
        plane=PlaneSettings(host="127.0.0.1", port=0), origin=OriginSettings(host="127.0.0.1", port=0)
    )
    async with (
        open_service(home, settings, store, signer("online")) as service,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(service.run)
        torrents = {InfoHash(name): data for name, data in request.torrents.items()}
        catalog = await service.publish(request.metadata, torrents)
        hashes = sorted({release.info_hash for release in catalog.releases.values()})
        await store.write(content.mark_published, hashes)
        nursery.cancel_scope.cancel()
    store.close()


def main() -> None:
    """Serve requests until the input ends."""
    for line in sys.stdin:
        request = msgspec.json.decode(line, type=Request)
        said, code = in_child(partial(child, request))
        changes = [json.loads(change) for change in said.splitlines()]
        print(json.dumps({"changes": changes, "code": code}), flush=True)


if __name__ == "__main__":
    main()
