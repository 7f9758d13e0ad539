"""Making torrents, and refusing every other one."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import TrustError, UsageError
from p2pdist.ids import InfoHash, SwarmName
from p2pdist.swarm.torrents import MadeTorrent, check_torrent, make_torrent, piece_bytes_for

SWARM = SwarmName("stable.acme.swarm.p2pdist.internal")
OTHER = SwarmName("beta.acme.swarm.p2pdist.internal")


def content_file(directory: Path, length: int) -> Path:
    path = directory / SWARM
    path.write_bytes(random.Random(length).randbytes(length))
    return path


def accept(made: MadeTorrent, **changes: object) -> None:
    fields: dict[str, object] = {"info_hash": made.info_hash, "swarm": SWARM, "length": made.length}
    check_torrent(made.torrent, **{**fields, **changes})  # type: ignore[arg-type] # built from parts


@pytest.mark.parametrize("length", [1, 16384, 16385, 65535, 65536, 65537, 3 * 65536, 1_000_003])
def test_a_torrent_is_what_libtorrent_itself_would_make(tmp_path: Path, length: int) -> None:
    path = content_file(tmp_path, length)
    made = make_torrent(path, swarm=SWARM)
    theirs = lt.create_torrent(
        [lt.create_file_entry(SWARM, length)], made.piece_bytes, lt.create_torrent.v2_only
    )
    theirs.set_priv(True)
    lt.set_piece_hashes(theirs, str(tmp_path))
    entry = theirs.generate()
    entry.pop(b"creation date", None)
    assert made.torrent == lt.bencode(entry)
    assert made.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert made.length == length
    accept(made)


def test_the_torrent_does_not_depend_on_the_name_of_the_file(tmp_path: Path) -> None:
    path = content_file(tmp_path, 200_000)
    renamed = tmp_path / "something else"
    first = make_torrent(path, swarm=SWARM)
    path.rename(renamed)
    assert make_torrent(renamed, swarm=SWARM) == first


def test_the_same_content_in_another_swarm_is_another_torrent(tmp_path: Path) -> None:
    path = content_file(tmp_path, 200_000)
    first, second = make_torrent(path, swarm=SWARM), make_torrent(path, swarm=OTHER)
    assert first.info_hash != second.info_hash
    assert first.sha256 == second.sha256


def test_what_cannot_be_an_artifact_is_refused_with_a_hint(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for path in (empty, tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError) as caught:
            make_torrent(path, swarm=SWARM)
        assert caught.value.hint
    for size in (0x4000, 100_000, 2 * limits.PIECE_BYTES_MAX):
        with pytest.raises(UsageError):
            make_torrent(content_file(tmp_path, 5), swarm=SWARM, piece_bytes=size)


@pytest.mark.parametrize("length", [30_000, 300_000])
def test_a_torrent_is_refused_when_anything_about_it_is_not_as_signed(tmp_path: Path, length: int) -> None:
    made = make_torrent(content_file(tmp_path, length), swarm=SWARM)
    accept(made)
    for changes in (
        {"info_hash": InfoHash("0" * 64)},
        {"swarm": OTHER},
        {"length": length + 1},
        {"length": 0},
        {"length": -5},
        {"length": limits.ARTIFACT_BYTES_MAX + 1},
    ):
        with pytest.raises(TrustError):
            accept(made, **changes)


def test_a_torrent_with_additions_is_refused_although_its_info_hash_is_right(tmp_path: Path) -> None:
    made = make_torrent(content_file(tmp_path, 300_000), swarm=SWARM)
    for key, value in ((b"announce", b"http://t/"), (b"url-list", b"http://w/"), (b"nodes", [[b"h", 1]])):
        entry: Any = lt.bdecode(made.torrent)
        entry[key] = value
        with pytest.raises(TrustError):
            check_torrent(lt.bencode(entry), info_hash=made.info_hash, swarm=SWARM, length=made.length)


def test_altered_piece_hashes_are_refused(tmp_path: Path) -> None:
    made = make_torrent(content_file(tmp_path, 300_000), swarm=SWARM)
    entry: Any = lt.bdecode(made.torrent)
    ((root, layer),) = entry[b"piece layers"].items()
    for wrong in (bytes(32) + layer[32:], layer[:-32], layer + bytes(32), layer[:-1], b""):
        entry[b"piece layers"] = {root: wrong}
        with pytest.raises(TrustError):
            check_torrent(lt.bencode(entry), info_hash=made.info_hash, swarm=SWARM, length=made.length)


def test_an_oversized_torrent_is_refused_unread() -> None:
    with pytest.raises(TrustError, match="exceeds the limit"):
        check_torrent(
            bytes(limits.TORRENT_BYTES_MAX + 1), info_hash=InfoHash("0" * 64), swarm=SWARM, length=1
        )


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused_with_our_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(TrustError):
        check_torrent(data, info_hash=InfoHash("0" * 64), swarm=SWARM, length=5)


_BENCODABLE = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([b"info", b"piece layers", b"piece length", b"file tree", b"", SWARM.encode()]),
            inner,
            max_size=4,
        )
    ),
)


@given(_BENCODABLE, st.booleans())
def test_any_bencoded_structure_is_refused_with_our_error_and_nothing_else(value: Any, wrap: bool) -> None:
    entry: Any = {b"info": value, b"piece layers": value} if wrap else value
    data = lt.bencode(entry)
    digest = hashlib.sha256(lt.bencode(value)).hexdigest()
    with pytest.raises(TrustError):
        check_torrent(data, info_hash=InfoHash(digest), swarm=SWARM, length=5)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeTorrent:
    return make_torrent(content_file(tmp_path_factory.mktemp("once"), 300_000), swarm=SWARM)


@given(st.data())
def test_a_torrent_with_a_flipped_bit_is_refused(made_once: MadeTorrent, data: st.DataObject) -> None:
    altered = bytearray(made_once.torrent)
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(TrustError):
        check_torrent(bytes(altered), info_hash=made_once.info_hash, swarm=SWARM, length=made_once.length)


@given(st.integers(1, limits.ARTIFACT_BYTES_MAX))
def test_the_piece_size_is_allowed_and_leaves_enough_pieces(length: int) -> None:
    size = piece_bytes_for(length)
    assert limits.PIECE_BYTES_MIN <= size <= limits.PIECE_BYTES_MAX
    assert size & (size - 1) == 0
    assert size == limits.PIECE_BYTES_MIN or length // size >= 400
    assert length // size * 32 < limits.TORRENT_BYTES_MAX
