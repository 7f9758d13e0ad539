"""A process of its own that fetches one artifact, for tests that kill it or starve it of disk.

It takes a JSON description on standard input, and writes one word per line on standard output:
``have N`` for each piece more, ``failed REASON``, ``finished``.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import trio

from p2pdist.swarm.session import (
    Artifact,
    ArtifactFinished,
    Source,
    StorageFailed,
    Swarm,
    SwarmSettings,
    open_swarm,
)
from p2pdist.wire.messages import RateLimits


async def _report_pieces(swarm: Swarm, artifact: Artifact) -> None:
    shown = -1
    while True:
        have = swarm.statistics(artifact.info_hash).have
        if have != shown:
            print("have", have, flush=True)
            shown = have
        await trio.sleep(0.05)


async def _fetch(plan: dict[str, Any]) -> None:
    settings = SwarmSettings(
        role="device",
        node=plan["node"],
        host=plan["host"],
        port=0,
        ca_pem=plan["ca"].encode(),
        certificate_pem=plan["certificate"].encode(),
        key_pem=plan["key"].encode(),
    )
    artifact = Artifact(
        info_hash=plan["info_hash"],
        torrent=bytes.fromhex(plan["torrent"]),
        path=Path(plan["path"]),
        swarm=plan["swarm"],
        length=plan["length"],
    )
    if limit := plan.get("file_bytes_max"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    async with open_swarm(settings) as swarm, trio.open_nursery() as nursery:
        swarm.set_rates(RateLimits(site_down=plan.get("rate", 0)))
        await swarm.add(artifact)
        swarm.set_sources(
            artifact.info_hash,
            [Source(node=plan["source"], role="origin", host=plan["source_host"], port=plan["source_port"])],
        )
        nursery.start_soon(_report_pieces, swarm, artifact)
        async for event in swarm.events():
            match event:
                case StorageFailed():
                    print("failed", event.reason, flush=True)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
                case ArtifactFinished():
                    print("finished", flush=True)
                    nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_fetch, json.load(sys.stdin))
