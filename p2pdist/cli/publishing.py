"""A publication directory on its way to the server: checked here first, uploaded with resumption, published.

::

    metadata/*.json   torrents/<info_hash>.torrent   artifacts/<info_hash>
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from p2pdist import limits
from p2pdist.cli.client import Client
from p2pdist.errors import Unavailable, UsageError
from p2pdist.files import read_bounded, storage_error
from p2pdist.ids import InfoHash, TargetPath
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.trust.verifier import Verifier
from p2pdist.wire import api as wire
from p2pdist.wire.requests import Bundle

_CHUNK_BYTES = 256 * limits.KIB
_ATTEMPTS = 6
_WAIT_FIRST_S = 0.5
_METADATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.json\Z")

Progress = Callable[[Release, int], None]
"""Called with a release and how many bytes of its content are at the server."""


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """A publication directory that verifies."""

    directory: Path
    metadata: dict[str, bytes]
    catalog: Catalog

    def releases(self) -> list[Release]:
        """Each artifact's release once, deltas included, the smallest first."""
        once = {release.info_hash: release for release in self.catalog.contents()}
        return sorted(once.values(), key=lambda release: (release.length, release.info_hash))

    def artifact(self, release: Release) -> Path:
        """Where a release's content is."""
        return self.directory / "artifacts" / release.info_hash


def read_publication(directory: Path) -> Publication:
    """Read a publication and verify it as a new device would.

    Raises:
        UsageError: it is no publication directory.
        TrustError, PeerError: it does not verify.
    """
    folder = directory / "metadata"
    if not folder.is_dir():
        raise UsageError(f"{directory} is no publication", hint="p2pdist-sign publish DIR writes one")
    names = sorted(path.name for path in folder.iterdir() if _METADATA_NAME.match(path.name))
    if len(names) > limits.BUNDLE_FILES_MAX:
        raise UsageError(f"{folder} holds {len(names)} files", hint="is this the right directory?")
    metadata = {n: read_bounded(folder / n, bytes_max=limits.TARGETS_BYTES_MAX) for n in names}
    if "1.root.json" not in metadata:
        raise UsageError(f"{folder} holds no 1.root.json", hint="p2pdist-sign publish writes it")
    with tempfile.TemporaryDirectory(prefix="p2pdist-publish-") as scratch:
        verifier = Verifier(Path(scratch), metadata["1.root.json"])
        catalog = verifier.update(Bundle(files=metadata), now=datetime.now(UTC))
    return Publication(directory=directory, metadata=metadata, catalog=catalog)


def upload(client: Client, publication: Publication, release: Release, progress: Progress) -> None:
    """Bring a release's content to the server, going on where an earlier attempt ended.

    A connection that breaks is tried again a few times; the call can be repeated after that too.

    Raises:
        UsageError: the content is not in the directory, or has another length.
        TrustError: the server found another hash than the signed one.
        Unavailable: the server stays away, or its disk is full.
    """
    path = publication.artifact(release)
    attempt = 0
    while True:
        try:
            state = client.get(f"/artifacts/{release.info_hash}", wire.ArtifactState)
            progress(release, state.stored_bytes)
            if state.complete:
                return
            client.put_stream(
                f"/artifacts/{release.info_hash}",
                _chunks(path, state.stored_bytes, release, progress),
                release.length - state.stored_bytes,
                wire.ArtifactState,
                offset=state.stored_bytes,
                length=release.length,
                sha256=release.sha256,
            )
        except Unavailable:
            attempt += 1
            if attempt >= _ATTEMPTS:
                raise
            time.sleep(_WAIT_FIRST_S * 2**attempt)


def publish(
    client: Client, publication: Publication, *, mirrored: bool = False
) -> tuple[wire.Published, list[TargetPath]]:
    """Hand the signed metadata over, with the torrents that the server lacks.

    With *mirrored*, the content of releases with mirrors need not be at the server.

    Returns:
        What is published now, and the targets of it that were not before, as far as the server has them.

    Raises:
        UsageError: a torrent is not in the directory.
        TrustError, PeerError: the server does not accept it.
    """
    before = client.get("/releases", wire.ReleaseList).releases
    there = {release.info_hash for release in before}
    there |= {delta.info_hash for release in before for delta in release.deltas}
    lacking = [InfoHash(r.info_hash) for r in publication.releases() if r.info_hash not in there]
    torrents = {
        str(info_hash): read_bounded(
            publication.directory / "torrents" / f"{info_hash}.torrent", bytes_max=limits.TORRENT_BYTES_MAX
        )
        for info_hash in lacking
    }
    body = wire.NewPublication(metadata=publication.metadata, torrents=torrents, mirrored=mirrored)
    published = client.post("/publications", wire.Published, body)
    known = {release.target for release in before} | set(published.left_out)
    return published, [target for target in publication.catalog.releases if target not in known]


def deploy(client: Client, targets: Sequence[TargetPath], group: str) -> list[wire.DeploymentInfo]:
    """Order releases onto a group, in order of their target paths.

    Raises:
        UsageError: there is no such group.
    """
    orders = [wire.NewDeployment(target=target, group=group) for target in sorted(targets)]
    return [client.post("/deployments", wire.DeploymentInfo, order) for order in orders]


def _chunks(path: Path, offset: int, release: Release, progress: Progress) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            if path.stat().st_size != release.length:
                raise UsageError(
                    f"{path} has {path.stat().st_size} bytes instead of the signed {release.length}",
                    hint="make the publication again: p2pdist-sign publish",
                )
            file.seek(offset)
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
                offset += len(chunk)
                progress(release, offset)
    except FileNotFoundError:
        raise UsageError(
            f"{path} is missing: the content of {release.target}", hint="copy the whole publication"
        ) from None
    except OSError as error:
        raise storage_error(f"{path} could not be read", error) from error
