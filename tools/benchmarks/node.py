"""One node of the benchmark's swarm: p2pdist.swarm with the sources that the site's rules give.

Takes a JSON plan on standard input, writes ``ready`` when it listens, starts when it reads a line, and
writes ``finished SECONDS`` (of the machine's monotonic clock) when it has everything. It serves on until
standard input ends; then it writes its statistics as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import trio

from p2pdist.swarm.session import (
    Artifact,
    ArtifactFinished,
    Source,
    Swarm,
    SwarmEvent,
    SwarmSettings,
    open_swarm,
)


async def run(plan: dict[str, Any]) -> None:
    """Run the node that the plan describes."""
    settings = msgspec.convert(plan["settings"], SwarmSettings)
    artifact = msgspec.convert(plan["artifact"], Artifact, dec_hook=lambda _, text: Path(text))
    sources = msgspec.convert(plan["sources"], list[Source])
    lines = trio.wrap_file(sys.stdin)
    async with open_swarm(settings) as swarm, trio.open_nursery() as nursery:
        for each in plan["others"]:
            swarm.learn([each])
        if artifact.sealed:
            await swarm.add(artifact)
        print("ready", flush=True)
        if not await lines.readline():
            return
        nursery.start_soon(report, swarm)
        if not artifact.sealed:
            await swarm.add(artifact)
        swarm.set_sources(artifact.info_hash, sources)
        await lines.readline()
        print(msgspec.json.encode(swarm.statistics(artifact.info_hash)).decode(), flush=True)
        nursery.cancel_scope.cancel()


async def report(swarm: Swarm) -> None:
    """Write when the artifact is complete, and everything else to standard error."""
    event: SwarmEvent
    async for event in swarm.events():
        if isinstance(event, ArtifactFinished):
            print(f"finished {time.monotonic()}", flush=True)
        else:
            print(event, file=sys.stderr, flush=True)


if __name__ == "__main__":
    trio.run(run, json.loads(sys.stdin.readline()))
