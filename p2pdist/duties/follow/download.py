"""Fetches one version that a vendor offers, onto the machine of whoever has it signed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import trio

from p2pdist import limits
from p2pdist.core.mirrors import MirrorFailed
from p2pdist.duties.mirrors.http import MirrorClient, open_client
from p2pdist.errors import PeerError, TrustError
from p2pdist.files import storage_error
from p2pdist.node.mirrorsettings import MirrorSettings

Progress = Callable[[int, int], None]
"""How many bytes have come, of how many; 0: not known."""


async def download(
    url: str,
    to: Path,
    *,
    size_bytes: int,
    sha256: str,
    settings: MirrorSettings,
    progress: Progress,
) -> str:
    """Fetch a file, and put it at *to* once it is whole and right.

    Args:
        url: Its address; without TLS only where *sha256* is known.
        to: Where it comes; what is there is replaced.
        size_bytes: How large it must be; 0: not known.
        sha256: What it must hash to; empty: not known.
        settings: The way to the vendor's server.
        progress: Told of what has come.

    Returns:
        Its SHA-256, in hexadecimal.

    Raises:
        TrustError: it is not what the vendor's index says.
        Unavailable: it does not come, or the disk is full.
    """
    part = to.with_name(f".{to.name[:240]}.part")
    try:
        with part.open("wb") as file:
            async with open_client(settings) as client:
                found = await _receive(client, url, file, size_bytes, progress, plain=bool(sha256))
            file.flush()
            os.fsync(file.fileno())
        if sha256 and found != sha256:
            raise TrustError(
                f"{url} is not what the vendor's index says: its SHA-256 is {found}",
                hint="do not use it; the next run of the task looks at the index again",
            )
        part.replace(to)
    except OSError as error:
        raise storage_error(f"{to} could not be written", error) from error
    finally:
        part.unlink(missing_ok=True)
    return found


async def _receive(
    client: MirrorClient, url: str, file: BinaryIO, size_bytes: int, progress: Progress, *, plain: bool
) -> str:
    bytes_max = size_bytes or limits.ARTIFACT_BYTES_MAX
    done, digest = 0, hashlib.sha256()
    try:
        async with client.ask_all(url, plain=plain) as answer:
            while data := await answer.receive():
                done += len(data)
                if done > bytes_max:
                    raise PeerError(f"{url} has more than {bytes_max} bytes")
                digest.update(data)
                await trio.to_thread.run_sync(file.write, data)
                progress(done, size_bytes or answer.length)
    except MirrorFailed as error:
        raise MirrorFailed(f"{url} cannot be fetched: {error.what}", fault=error.fault) from None
    return digest.hexdigest()
