"""Apply a delta: unpack the base, decompress the delta with it, pack the result, and check its hash.

It is done by a process of its own (:mod:`~p2pdist.install.patching`): what is compared is in memory, up to
half a gigabyte of it. The process limits itself, gives way to everything else on its machine, and is what the
kernel ends first where memory is short.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import zstandard

from p2pdist import limits
from p2pdist.core.deltas import memory_bytes
from p2pdist.errors import P2PDistError, TrustError
from p2pdist.files import storage_error
from p2pdist.install.packing import PACKINGS, packed, unpack
from p2pdist.trust.artifacts import check_file
from p2pdist.trust.catalog import Delta

_CHUNK_BYTES = 256 * limits.KIB
_FRAME_HEADER_BYTES_MAX = 18  # RFC 8878, section 3.1.1


class Patch(msgspec.Struct, frozen=True, kw_only=True):
    """What to make: from the files *base* and *delta* the file *result*, which must not be there yet, with
    this length and SHA-256."""

    base: str
    delta: str
    result: str
    how: Delta
    length: int
    sha256: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How that ended: an empty *failure*, or why there is no result."""

    failure: str = ""


def apply_patch(patch: Patch) -> None:
    """Make the result, durably. Blocking.

    Raises:
        TrustError: the base is not what the delta was made from, the delta is damaged or says more than it
            may, or the result is not what was signed. There is no result.
        Unavailable: the disk is full or fails. There is no result.
    """
    how, result = patch.how, Path(patch.result)
    if how.packing not in PACKINGS:
        raise TrustError(f"this version cannot pack {how.packing!r}")
    _check(
        Path(patch.base), how.base_length, how.base_sha256, "the older artifact here is not what was signed"
    )
    try:
        with result.open("xb") as file:
            try:
                with packed(file, how.packing) as out:
                    _decompress(Path(patch.delta), _prefix(patch), how, out.write)
                file.flush()
                os.fsync(file.fileno())
                _check(result, patch.length, patch.sha256, "it does not make what was signed")
            except BaseException:
                result.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise storage_error("a delta could not be applied", error) from error


def _check(path: Path, length: int, sha256: str, problem: str) -> None:
    try:
        check_file(path, length=length, sha256=sha256)
    except TrustError as error:
        raise TrustError(problem) from error


def _prefix(patch: Patch) -> zstandard.ZstdCompressionDict:
    content = unpack(Path(patch.base), patch.how.packing, length=patch.how.base_unpacked)
    return zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _decompress(
    delta: Path, prefix: zstandard.ZstdCompressionDict, how: Delta, write: Callable[[bytes], object]
) -> None:
    with delta.open("rb") as file:
        try:
            frame = zstandard.get_frame_parameters(file.read(_FRAME_HEADER_BYTES_MAX))
            if frame.content_size != how.unpacked or frame.window_size > 1 << how.window_log:
                raise TrustError(
                    f"a delta makes {frame.content_size} bytes with a window of {frame.window_size},"
                    f" {how.unpacked} bytes with {1 << how.window_log} are signed"
                )
            file.seek(0)
            decompressor = zstandard.ZstdDecompressor(dict_data=prefix, max_window_size=1 << how.window_log)
            reader = decompressor.stream_reader(file)
            left = how.unpacked
            while left and (chunk := reader.read(min(left, _CHUNK_BYTES))):
                write(chunk)
                left -= len(chunk)
            if left or reader.read(1):
                raise TrustError(f"a delta does not make the {how.unpacked} bytes that are signed")
        except zstandard.ZstdError as error:
            raise TrustError(f"a delta is damaged: {error}") from error


def main() -> int:
    """Carry out the :class:`Patch` on standard input, and say the :class:`Outcome` on standard output."""
    patch = msgspec.json.decode(sys.stdin.buffer.read(limits.MIB), type=Patch)
    os.nice(10)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    memory = memory_bytes(patch.how)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.DELTA_WORK_S, limits.DELTA_WORK_S))
    try:
        apply_patch(patch)
        outcome = Outcome()
    except P2PDistError as error:
        outcome = Outcome(failure=error.what)
    except MemoryError:
        outcome = Outcome(failure=f"it takes more than {memory} bytes of memory")
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
