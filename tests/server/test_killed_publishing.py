"""``kill -9`` at any change that the server makes to its disk while it starts and publishes."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from serverkit import ACME, STABLE, Publisher, found, signer

from p2pdist.ids import swarm_of
from p2pdist.server.serverhome import ServerHome
from p2pdist.swarm.torrents import check_torrent
from p2pdist.trust.publication import OnlineRepository

pytestmark = pytest.mark.slow  # real processes, really killed

DATA = bytes(range(256)) * 1_000
STEP = 3  # 1 tries every change, and takes three times as long


class Killer:
    """The program of killed.py, asked from here."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("killed.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def publish(self, server: Path, publication: dict[str, Any], **options: Any) -> tuple[list[str], int]:
        """Start the server and publish; return its changes to the disk, and how it ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"server": str(server), **publication, **options}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["changes"], answer["code"]


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    killer = Killer()
    yield killer
    assert killer.process.stdin is not None and killer.process.stdout is not None
    killer.process.stdin.close()
    killer.process.wait(10)
    killer.process.stdout.close()


class Server:
    """A server's directory with one release in it, and the publication that brings the second."""

    def __init__(self, directory: Path, killer: Killer) -> None:
        publisher = Publisher(directory / "signed")
        self.directory = directory / "first"
        publisher.add_release("1.0", DATA)
        home = found(directory, publisher)
        home.root.rename(self.directory)
        self._put_content(publisher)
        assert killer.publish(self.directory, _publication(publisher))[1] == 0
        publisher.add_release("2.0", DATA * 2, sequence=2)
        self._put_content(publisher)
        self.second = _publication(publisher)

    def _put_content(self, publisher: Publisher) -> None:
        for info_hash, path in publisher.artifacts.items():
            shutil.copy(path, ServerHome(self.directory).artifact(info_hash))


def _publication(publisher: Publisher) -> dict[str, Any]:
    return {
        "metadata": {name: base64.b64encode(data).decode() for name, data in publisher.metadata().items()},
        "torrents": {h: base64.b64encode(data).decode() for h, data in publisher.torrents.items()},
    }


@pytest.fixture
def server(tmp_path: Path, killer: Killer) -> Server:
    return Server(tmp_path, killer)


def published(directory: Path) -> set[str]:
    """The versions that the disk has whole: metadata that verifies, and what it names."""
    home = ServerHome(directory)
    repository = OnlineRepository(home.metadata, home.trusted_root, signer("online"))
    catalog = repository.load(now=datetime.now(UTC))
    assert catalog is not None
    for release in catalog.releases.values():
        torrent = home.read_torrent(release.info_hash)
        assert torrent is not None, f"the torrent of {release.version} is missing"
        check_torrent(
            torrent, info_hash=release.info_hash, swarm=swarm_of(STABLE, ACME), length=release.length
        )
        content = home.artifact(release.info_hash).read_bytes()
        assert hashlib.sha256(content).hexdigest() == release.sha256
    return {release.version for release in catalog.releases.values()}


def killed_at(server: Server, killer: Killer, directory: Path, at: int, **options: Any) -> set[str]:
    """Kill a copy of the server right before a change; return what is published then.

    How many commits there are differs by one or two: the last change may be past the end of this run.
    """
    shutil.copytree(server.directory, directory, symlinks=True)
    changes, code = killer.publish(directory, server.second, kill_at=at, **options)
    assert (code == -9 and len(changes) >= at) or (code == 0 and len(changes) < at)
    return published(directory)


def test_killed_at_any_change_the_old_or_the_new_is_there_whole_and_publishing_goes_on(
    server: Server, killer: Killer, tmp_path: Path
) -> None:
    shutil.copytree(server.directory, tmp_path / "whole", symlinks=True)
    changes, code = killer.publish(tmp_path / "whole", server.second)
    assert code == 0 and published(tmp_path / "whole") == {"1.0", "2.0"}
    writes = [at for at, change in enumerate(changes, 1) if "/torrents/" in change]
    seen = []
    last = max(at for at, change in enumerate(changes, 1) if change != "commit")
    for at in sorted({*range(1, last + 1, STEP), writes[0], writes[-1] + 1, last + 1}):
        directory = tmp_path / f"killed-{at}"
        versions = killed_at(server, killer, directory, at)
        assert versions in ({"1.0"}, {"1.0", "2.0"})
        seen.append((at, len(versions)))
        changes, code = killer.publish(directory, server.second)
        assert code == 0 and published(directory) == {"1.0", "2.0"}
        shutil.rmtree(directory)
    assert seen == sorted(seen, key=lambda each: (each[1], each[0])), "once it is there, it stays"
    assert {count for _, count in seen} == {1, 2}
    assert sum(writes[0] < at for at, count in seen if count == 1) >= 3, "kills between two of its steps"


def test_a_server_that_wrote_torrents_after_the_metadata_would_be_caught(
    server: Server, killer: Killer, tmp_path: Path
) -> None:
    shutil.copytree(server.directory, tmp_path / "whole", symlinks=True)
    changes, _ = killer.publish(tmp_path / "whole", server.second, torrents_last=True)
    writes = [at for at, change in enumerate(changes, 1) if "/torrents/" in change]
    with pytest.raises(AssertionError, match=r"the torrent of 2\.0 is missing"):
        killed_at(server, killer, tmp_path / "killed", writes[0], torrents_last=True)
