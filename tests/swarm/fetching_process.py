"""A process of its own that fetches one artifact, for tests that kill it or starve it of disk.

It takes a JSON description on standard input, and writes one word per line on standard output:
``failed REASON``, ``finished BYTES``: what came over the network.
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
    SwarmSettings,
    open_swarm,
)
from p2pdist.wire.messages import RateLimits


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
    async with open_swarm(settings) as swarm:
        swarm.set_rates(RateLimits(site_down=plan.get("rate", 0)))
        await swarm.add(artifact)
        swarm.set_sources(
            artifact.info_hash,
            [Source(node=plan["source"], role="origin", host=plan["source_host"], port=plan["source_port"])],
        )
        async for event in swarm.events():
            match event:
                case StorageFailed():
                    print("failed", event.reason, flush=True)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
                case ArtifactFinished():
                    statistics = swarm.statistics(artifact.info_hash)
                    came = sum(source.received for source in statistics.sources) + statistics.unattributed
                    print("finished", came, flush=True)
                    return


if __name__ == "__main__":
    trio.run(_fetch, json.load(sys.stdin))
