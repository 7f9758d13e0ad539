"""A process that reads an artifact from a mirror, says how many pieces it holds, and is killed by a test."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[1] / "swarm"))
from swarm_fleet import SWARM, Node, artifact, authority

from p2pdist.duties.mirrors.http import open_client
from p2pdist.duties.mirrors.reader import Wanted, read_artifact
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.swarm.torrents import make_torrent
from p2pdist.trust.catalog import Mirror


async def main(original: str, copy: str, url: str, ca_file: str) -> None:
    torrent = make_torrent(Path(original), swarm=SWARM)
    node = Node(authority(), "point", "127.0.0.1")
    async with node.open() as swarm, open_client(MirrorSettings(ca_file=Path(ca_file))) as client:
        wanted = Wanted(artifact=artifact(torrent, Path(copy)), mirrors=(Mirror(url=url),), own=node.node)
        await swarm.add(wanted.artifact)
        await read_artifact(
            wanted, swarm, client, progress=lambda was_read: print(was_read.pieces.held, flush=True)
        )


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
