"""What an ``apt`` repository offers: from the signed ``InRelease`` down to its packages."""

from __future__ import annotations

import time
from functools import partial

import trio

from p2pdist import limits
from p2pdist.core.aptindexes import (
    PACKAGE_FIELDS,
    Listed,
    NewestPackages,
    ReleaseIndex,
    check_release,
    packages_index,
    parse_release,
)
from p2pdist.core.deb822 import Paragraphs
from p2pdist.core.mirrors import MirrorFailed
from p2pdist.duties.follow.openpgp import Keyring
from p2pdist.duties.follow.reading import Found, in_time, read_file
from p2pdist.duties.follow.unpacking import IndexStream
from p2pdist.duties.mirrors.http import MirrorClient
from p2pdist.duties.run import RunPort
from p2pdist.wire.following import AptSource


async def read_apt(
    source: AptSource, keyring: Keyring, client: MirrorClient, port: RunPort, *, seen: int
) -> Found:
    """Read the newest version of each wanted package.

    Raises:
        TrustError: an index is not what one of the keys has signed, has expired, or is older than *seen*.
        PeerError: an index is no index, or too large.
        UsageError: the repository does not have what is followed.
        Unavailable: it cannot be read now.
    """
    root, flat = source.url.rstrip("/"), source.suite.endswith("/")
    base = f"{root}/{source.suite.strip('./')}".rstrip("/") if flat else f"{root}/dists/{source.suite}"
    port.progress("reading InRelease")
    data = await read_file(client, f"{base}/InRelease", bytes_max=limits.RELEASE_BYTES_MAX, plain=True)
    release = await trio.to_thread.run_sync(_opened, data, keyring)
    check_release(release, source, seen=seen, now=int(time.time()))
    newest = NewestPackages(source)
    if flat:
        listed = packages_index(release, "", "")
        await _read_index(client, base, listed, release, newest, source.architectures, port)
    else:
        for component in source.components:
            for architecture in source.architectures:
                listed = packages_index(release, component, architecture)
                await _read_index(client, base, listed, release, newest, [architecture], port)
    return Found(newest.offers(), release.date, newest.left_out)


def _opened(data: bytes, keyring: Keyring) -> ReleaseIndex:
    return parse_release(keyring.open_clear(data, "the InRelease"))


async def _read_index(
    client: MirrorClient,
    base: str,
    listed: Listed,
    release: ReleaseIndex,
    newest: NewestPackages,
    architectures: list[str],
    port: RunPort,
) -> None:
    """Read one ``Packages``, by its hash where the repository keeps that: it cannot change meanwhile."""
    if release.by_hash:
        directory = listed.path.rpartition("/")[0]
        path = f"{directory}/by-hash/SHA256/{listed.sha256}".lstrip("/")
        try:
            await _read_from(client, f"{base}/{path}", listed, newest, architectures, port)
        except MirrorFailed as error:
            if error.fault != "useless":
                raise
        else:
            return
    await _read_from(client, f"{base}/{listed.path}", listed, newest, architectures, port)


async def _read_from(
    client: MirrorClient,
    url: str,
    listed: Listed,
    newest: NewestPackages,
    architectures: list[str],
    port: RunPort,
) -> None:
    stream, paragraphs, done = IndexStream(listed), Paragraphs(PACKAGE_FIELDS), 0

    def take(data: bytes) -> None:
        for piece in stream.feed(data):
            newest.take(paragraphs.feed(piece), architectures)

    with in_time(url):
        async with client.ask_all(url, plain=True) as answer:
            while data := await answer.receive():
                await trio.to_thread.run_sync(take, data)
                done += len(data)
                port.progress(f"reading {listed.path}", done=done, total=listed.size_bytes)
    stream.finish()
    await trio.to_thread.run_sync(partial(newest.take, paragraphs.finish(), architectures))
