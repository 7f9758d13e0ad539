"""Content on its way in: resumable, hashed when it is whole, switched into place atomically.

An upload grows in ``incoming/<info_hash>``. Once it has its full length and the hash that the uploader
named, it is renamed into ``artifacts/`` and recorded; publishing compares the record with what is signed.
A crash in between leaves a part that the next upload resumes, or a file that is hashed once more.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
import trio

from p2pdist import limits
from p2pdist.errors import TrustError, Unavailable, UsageError
from p2pdist.files import storage_error, sync_directory
from p2pdist.ids import InfoHash
from p2pdist.server.contentcheck import hash_content
from p2pdist.server.serverhome import ServerHome
from p2pdist.store import content
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import ArtifactRecord

_BUFFER_BYTES = 1 * limits.MIB
_CHECK_SPACE_BYTES = 16 * limits.MIB


class OffsetMismatch(UsageError):
    """The upload does not continue where the server is. ``stored_bytes`` says where that is."""

    def __init__(self, stored_bytes: int) -> None:
        super().__init__(
            f"the server has {stored_bytes} bytes of this artifact", hint=f"continue at offset={stored_bytes}"
        )
        self.stored_bytes = stored_bytes


class Uploads:
    """The uploads of one server; each artifact takes one at a time.

    Attributes:
        directory: Where they grow, each under its info-hash.

    Args:
        damaged: The artifacts whose present file is not what was signed; they can be uploaded again.
    """

    def __init__(self, home: ServerHome, store: FleetStore, damaged: Container[InfoHash]) -> None:
        self._damaged = damaged
        self._home = home
        self._store = store
        self.directory = home.root / "incoming"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._busy: set[InfoHash] = set()

    def part(self, info_hash: InfoHash) -> Path:
        """Return where an upload grows."""
        return self.directory / info_hash

    @contextmanager
    def claimed(self, info_hash: InfoHash) -> Iterator[None]:
        """Keep uploads of an artifact away for as long as the block runs.

        Raises:
            Unavailable: one is under way.
        """
        if info_hash in self._busy:
            raise Unavailable(f"{info_hash} is being uploaded already", hint="wait for the other upload")
        self._busy.add(info_hash)
        try:
            yield
        finally:
            self._busy.discard(info_hash)

    async def state(self, info_hash: InfoHash) -> tuple[int, bool]:
        """Return how many bytes are there, and whether it is whole and recorded.

        Whoever asks may be about to publish it: if no release names it any more, it is kept for longer.
        """
        records = await self._store.read(content.list_artifacts)
        record = records.get(info_hash)
        if record is not None and not record.damage and info_hash not in self._damaged:
            size = await trio.to_thread.run_sync(_size, self._home.artifact(info_hash))
            if size == record.length:
                if record.unnamed_since is not None:
                    await self._store.write(content.keep_unnamed, info_hash)
                return size, True
        return await trio.to_thread.run_sync(_size, self.part(info_hash)), False

    async def receive(
        self,
        info_hash: InfoHash,
        chunks: AsyncIterator[bytes],
        *,
        offset: int,
        length: int,
        sha256: str,
        now: int,
    ) -> tuple[int, bool]:
        """Append *chunks* to an upload, and finish it when it is whole.

        What has arrived stays when the sender goes away, the disk fills up, or the caller is cancelled.

        Args:
            offset: Where the chunks belong; must be where the server is.
            length: The artifact's full length in bytes.
            sha256: The hash of the whole, in hexadecimal.
            now: Unix seconds.

        Returns:
            As :meth:`state`.

        Raises:
            OffsetMismatch: the server is elsewhere.
            UsageError: more came than *length*, or another upload of it is under way.
            TrustError: the whole has another hash; it was thrown away.
            Unavailable: the disk is full.
        """
        with self.claimed(info_hash):
            stored, complete = await self.state(info_hash)
            if complete:
                return stored, True
            if offset != stored:
                raise OffsetMismatch(stored)
            stored = await self._append(info_hash, chunks, stored, length)
            if stored < length:
                return stored, False
            await self.take(info_hash, self.part(info_hash), length=length, sha256=sha256, now=now)
            return stored, True

    async def take(
        self,
        info_hash: InfoHash,
        path: Path,
        *,
        length: int,
        sha256: str,
        now: int,
        published: bool = False,
        sent_bytes: int = 0,
    ) -> None:
        """Take a whole file as an artifact's content; the caller has claimed it. Arguments as above.

        Args:
            path: The file, on the disk that holds the content.
            published: Whether it is published already.
            sent_bytes: What was sent of it meanwhile.

        Raises:
            TrustError: it has another hash; it was thrown away.
            Unavailable: the disk does not take it.
        """
        record = ArtifactRecord(
            info_hash=info_hash,
            length=length,
            sha256=sha256,
            modified_ns=0,
            published=published,
            damage="",
            stored=now,
            sent_bytes=sent_bytes,
        )
        await trio.to_thread.run_sync(self._finish, path, record)

    async def _append(
        self, info_hash: InfoHash, chunks: AsyncIterator[bytes], stored: int, length: int
    ) -> int:
        await trio.to_thread.run_sync(_check_space, self.directory, length - stored)
        file = await trio.to_thread.run_sync(_open, self.part(info_hash))
        try:
            buffer = bytearray()
            checked = 0
            async for chunk in chunks:
                if stored + len(buffer) + len(chunk) > length:
                    raise UsageError(f"more than the announced {length} bytes came", hint="check the file")
                buffer += chunk
                if len(buffer) >= _BUFFER_BYTES:
                    stored += len(buffer)
                    checked += len(buffer)
                    await trio.to_thread.run_sync(_write, file, bytes(buffer))
                    buffer.clear()
                    if checked >= _CHECK_SPACE_BYTES:
                        await trio.to_thread.run_sync(_check_space, self.directory, 0)
                        checked = 0
            await trio.to_thread.run_sync(_write, file, bytes(buffer))
            return stored + len(buffer)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
                await trio.to_thread.run_sync(_close, file)

    def _finish(self, part: Path, record: ArtifactRecord) -> None:
        path = self._home.artifact(record.info_hash)
        found = hash_content(part)
        if found != record.sha256:
            part.unlink()
            raise TrustError(
                f"the content of {record.info_hash} has the SHA-256 {found} instead of {record.sha256}",
                hint="it was altered on the way or on the disk: check the file and upload it again",
            )
        part.replace(path)
        sync_directory(path.parent)
        record = msgspec.structs.replace(record, modified_ns=path.stat().st_mtime_ns)
        self._store.write_now(content.put_artifact, record)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("ab", buffering=0)
    except OSError as error:
        raise storage_error("the upload could not be stored", error) from error


def _write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise storage_error("the upload could not be stored", error) from error


def _close(file: BinaryIO) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        raise storage_error("the upload could not be stored", error) from error
    finally:
        file.close()


def _check_space(directory: Path, more: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < more + limits.DISK_RESERVE_BYTES:
        raise Unavailable(
            f"the server has {free} bytes of disk free; the upload needs {more} and must leave"
            f" {limits.DISK_RESERVE_BYTES}",
            hint="free some space at the server, then publish again: the upload continues",
        )
