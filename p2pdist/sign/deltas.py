"""Make deltas, as ``zstd --patch-from`` does, from older releases in the repository to a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from backports import zstd

from p2pdist import limits
from p2pdist.core.deltas import bases_for, is_worth, window_log
from p2pdist.errors import TrustError
from p2pdist.files import storage_error
from p2pdist.ids import SwarmName
from p2pdist.install.packing import DEB, NONE, TREE, unpack
from p2pdist.install.patch import Patch, apply_patch
from p2pdist.swarm.torrents import MadeTorrent, make_torrent
from p2pdist.trust.catalog import DebRecipe, Delta, Release, TreeRecipe
from p2pdist.trust.phrases import size_words
from p2pdist.trust.publishing import Progress
from p2pdist.trust.repository import Repository

_LEVEL = 19  # two thirds of what level 9 makes of programs, for ten times its time; it is done once
_CHUNK_BYTES = limits.MIB
_PREFIX_BYTES_MIN = 8  # zstd's own


class MadeDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A delta whose content is in the repository's scratch, ready to be taken."""

    base: Release
    delta: Delta
    torrent: MadeTorrent
    content: Path


class Declined(msgspec.Struct, frozen=True, kw_only=True):
    """A base from which there is no delta, and why."""

    base: Release
    reason: str


def make_deltas(
    repository: Repository,
    release: Release,
    content: Path,
    known: Sequence[Release],
    *,
    swarm: SwarmName,
    progress: Progress,
) -> Iterator[MadeDelta | Declined]:
    """Make the deltas of a new release, each tried out before it is returned. Blocking.

    Both contents of a delta are in memory, with as much again for the search.

    Args:
        repository: Holds the older artifacts.
        release: The new release.
        content: Its artifact; the deltas are put beside it.
        known: The releases of its channel.
        swarm: The swarm that may exchange them.
        progress: Is told of each.

    Raises:
        Unavailable: the disk is full or fails.
    """
    if release.length < limits.DELTA_ARTIFACT_BYTES_MIN:
        return
    for number, base in enumerate(bases_for(release, known)):
        path = content.with_name(f"delta-{number}")
        try:
            yield _made(repository, release, content, base, path, swarm, progress)
        except TrustError as error:
            yield Declined(base=base, reason=error.what)


def write_delta(
    before: bytes, after: bytes, path: Path, *, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Write to *path* what makes *after* from *before*, as ``zstd -19 --patch-from`` does. Blocking.

    Args:
        before: At least eight bytes.
        after: The new content.
        path: The delta's file.
        progress: Called with how many bytes of *after* are done.
    """
    option = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(
        options={
            option.compression_level: _LEVEL,
            option.window_log: window_log(len(before), len(after)),
            option.enable_long_distance_matching: 1,
            option.checksum_flag: 1,
        },
        zstd_dict=zstd.ZstdDict(before, is_raw=True).as_prefix,
    )
    compressor.set_pledged_input_size(len(after))
    view = memoryview(after)
    with path.open("wb") as file:
        for begin in range(0, len(after), _CHUNK_BYTES):
            file.write(compressor.compress(view[begin : begin + _CHUNK_BYTES]))
            progress(min(begin + _CHUNK_BYTES, len(after)))
        file.write(compressor.flush())


def _made(
    repository: Repository,
    release: Release,
    content: Path,
    base: Release,
    path: Path,
    swarm: SwarmName,
    progress: Progress,
) -> MadeDelta:
    old = repository.artifacts / base.info_hash
    if not old.exists():
        raise TrustError("its content is not in the repository")
    for packing in _packings(base, release):
        try:
            return _packed_so(release, content, base, old, path, packing, swarm, progress)
        except TrustError:
            if packing == NONE:
                raise
    raise AssertionError("the last packing is none")


def _packed_so(
    release: Release,
    content: Path,
    base: Release,
    old: Path,
    path: Path,
    packing: str,
    swarm: SwarmName,
    progress: Progress,
) -> MadeDelta:
    try:
        before, after = unpack(old, packing), unpack(content, packing)
    except OSError as error:
        raise storage_error(f"{old} or {content} could not be read", error) from error
    if len(before) < _PREFIX_BYTES_MIN:
        raise TrustError("there is nothing in it")
    what = f"delta from {base.version}"
    try:
        total = len(after)
        write_delta(before, after, path, progress=lambda done: progress(what, done, total))
    except OSError as error:
        raise storage_error(f"{path} could not be written", error) from error
    length = path.stat().st_size
    if not is_worth(length, release.length):
        saved = max(0, 100 - -(-100 * length // release.length))
        raise TrustError(f"it would save {saved} % of {size_words(release.length)}")
    torrent = make_torrent(path, swarm=swarm)
    delta = Delta(
        base=base.info_hash,
        base_sha256=base.sha256,
        base_length=base.length,
        info_hash=torrent.info_hash,
        length=length,
        sha256=torrent.sha256,
        window_log=window_log(len(before), len(after)),
        packing=packing,
        base_unpacked=len(before),
        unpacked=len(after),
    )
    del before, after
    result = path.with_suffix(".result")
    patch = Patch(
        base=str(old),
        delta=str(path),
        result=str(result),
        how=delta,
        length=release.length,
        sha256=release.sha256,
    )
    apply_patch(patch)
    result.unlink()
    return MadeDelta(base=base, delta=delta, torrent=torrent, content=path)


def _packings(base: Release, release: Release) -> tuple[str, ...]:
    """How both may be packed, the likeliest first."""
    match base.recipe, release.recipe:
        case TreeRecipe(), TreeRecipe():
            return TREE, NONE
        case DebRecipe(), DebRecipe():
            return DEB, NONE
        case _:
            return (NONE,)
