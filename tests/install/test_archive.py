"""Trees as artifacts: the same bytes every time, and nothing unpacked that could do harm."""

from __future__ import annotations

import io
import os
import random
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import P2PDistError, TrustError, Unavailable, UsageError
from p2pdist.install import archive as archive_module
from p2pdist.install.archive import pack_tree, unpack_tree
from p2pdist.trust.catalog import TreeRecipe

ROOMY = TreeRecipe(unpacked_bytes=10_000_000, entries=1_000)


def make_tree(root: Path) -> Path:
    """A tree with everything that is allowed in one."""
    (root / "bin").mkdir(parents=True)
    (root / "bin/run").write_bytes(b"#!/bin/sh\nexit 0\n")
    (root / "bin/run").chmod(0o751)
    (root / "lib/deep/deeper").mkdir(parents=True)
    (root / "lib/deep/deeper/data").write_bytes(bytes(range(256)) * 5_000)
    (root / "lib/empty").mkdir()
    (root / "lib/nothing").write_bytes(b"")
    (root / "lib/current").symlink_to("deep/deeper")
    (root / "lib/deep/up").symlink_to("../../bin/run")
    (root / "dangling").symlink_to("not-here")
    (root / ("long-" * 30)).write_bytes(b"long")
    (root / ("d" * 100)).mkdir()
    (root / ("d" * 100) / ("e" * 100)).symlink_to("x" * 150)
    (root / "naïve ☃\nname").write_bytes(b"odd")
    Path(os.fsdecode(os.fsencode(root) + b"/not-\xff-utf8")).write_bytes(b"odder")
    return root


def content_of(root: Path) -> dict[str, tuple[str, object]]:
    """What matters of a tree."""
    found: dict[str, tuple[str, object]] = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = Path(directory) / name
            relative = str(path.relative_to(root))
            if path.is_symlink():
                found[relative] = ("link", os.readlink(path))  # noqa: PTH115
            elif path.is_dir():
                found[relative] = ("directory", None)
            else:
                executable = bool(path.stat().st_mode & 0o111)
                found[relative] = ("program" if executable else "file", path.read_bytes())
    return found


Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, content: bytes = b"", **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def directory(name: str) -> Entry:
    return entry(name, type=tarfile.DIRTYPE, mode=0o755)


def link(name: str, target: str) -> Entry:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def write_archive(path: Path, *entries: Entry, end: bytes = bytes(1_024)) -> Path:
    raw = b""
    for info, content in entries:
        raw += info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        raw += content + bytes(-len(content) % 512)
    path.write_bytes(zstandard.compress(raw + end))
    return path


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# Packing -------------------------------------------------------------------------------------------


def test_a_tree_comes_out_as_it_went_in(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    packed = pack_tree(source, tmp_path / "artifact")
    recipe = TreeRecipe(unpacked_bytes=packed.unpacked_bytes, entries=packed.entries)
    unpacked = unpack_tree(tmp_path / "artifact", tmp_path / "there", recipe)
    assert unpacked == packed
    assert content_of(tmp_path / "there") == content_of(source)
    assert leftovers(tmp_path) == ["artifact", "source", "there"]


def test_the_same_tree_gives_the_same_bytes_wherever_and_whenever_it_is_made(tmp_path: Path) -> None:
    first = make_tree(tmp_path / "first")
    second = tmp_path / "elsewhere" / "second"
    second.parent.mkdir()
    shutil.copytree(first, second, symlinks=True)
    names = sorted(second.rglob("*"), key=lambda path: str(path)[::-1])
    for number, path in enumerate(names):
        if not path.is_symlink():
            os.utime(path, (number, number * 7))
            path.chmod(0o700 if path.is_dir() or path.stat().st_mode & 0o100 else 0o600)
    pack_tree(first, tmp_path / "a")
    pack_tree(second, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd program is not here")
def test_the_ordinary_tar_opens_it(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    pack_tree(source, tmp_path / "artifact")
    (tmp_path / "there").mkdir()
    subprocess.run(["tar", "--zstd", "-xf", tmp_path / "artifact", "-C", tmp_path / "there"], check=True)
    assert content_of(tmp_path / "there") == content_of(source)


def hard_link(tree: Path) -> None:
    (tree / "other").hardlink_to(tree / "file")


def setuid(tree: Path) -> None:
    (tree / "other").write_bytes(b"")
    (tree / "other").chmod(0o4755)


def unix_socket(tree: Path) -> None:
    before = Path.cwd()
    os.chdir(tree)  # its whole name may be too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("other")
    finally:
        os.chdir(before)


FORBIDDEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "a hard link": (hard_link, r"'other' is a hard link|'file' is a hard link"),
    "a setuid program": (setuid, "'other' is setuid"),
    "a pipe": (lambda tree: os.mkfifo(tree / "other"), "'other' is neither a file"),
    "a socket": (unix_socket, "'other' is neither a file"),
    "an absolute link": (
        lambda tree: (tree / "other").symlink_to("/etc/passwd"),
        "'other' is a symbolic link",
    ),
    "a link above": (lambda tree: (tree / "other").symlink_to("../x"), "'other' is a symbolic link"),
    "a deep link above": (
        lambda tree: (tree / "sub/other").symlink_to("../../x"),
        "'sub/other' is a symbolic",
    ),
    "a link down and up": (lambda tree: (tree / "other").symlink_to("sub/../sub"), "after going down"),
}


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_what_cannot_be_installed_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    add, message = FORBIDDEN[kind]
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_bytes(b"fine")
    add(tree)
    with pytest.raises(UsageError, match=message):
        pack_tree(tree, tmp_path / "artifact")
    assert leftovers(tmp_path) == ["tree"]


def test_a_file_whose_other_name_is_outside_the_tree_is_packed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "cache").write_bytes(b"shared")
    (tmp_path / "tree/file").hardlink_to(tmp_path / "cache")
    assert pack_tree(tmp_path / "tree", tmp_path / "artifact").entries == 1


def test_an_empty_or_missing_tree_and_an_artifact_inside_it_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="is empty"):
        pack_tree(tmp_path / "empty", tmp_path / "artifact")
    with pytest.raises(UsageError, match="is not a directory"):
        pack_tree(tmp_path / "missing", tmp_path / "artifact")
    tree = make_tree(tmp_path / "tree")
    with pytest.raises(UsageError, match="inside the tree"):
        pack_tree(tree, tree / "bin/artifact")


def test_a_failed_pack_leaves_the_older_artifact_alone(tmp_path: Path) -> None:
    (tmp_path / "artifact").write_bytes(b"older")
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree/pipe")
    with pytest.raises(UsageError):
        pack_tree(tmp_path / "tree", tmp_path / "artifact")
    assert (tmp_path / "artifact").read_bytes() == b"older"


# Attacks -------------------------------------------------------------------------------------------

PAX = entry("pax", b"12 path=../x\n", type=tarfile.XHDTYPE)

ATTACKS: dict[str, list[Entry]] = {
    "a name above": [entry("../evil", b"x")],
    "a name above in the middle": [directory("a"), entry("a/../../evil", b"x")],
    "an absolute name": [entry("/tmp/evil", b"x")],
    "an empty part": [directory("a"), entry("a//b", b"x")],
    "a dot": [entry("./a", b"x")],
    "a link outside": [link("out", "../..")],
    "an absolute link": [link("out", "/etc")],
    "a chain of links": [
        directory("p"),
        directory("p/q"),
        directory("top"),
        link("p/q/s", "../../top"),
        link("x", "p/q/s/../../.."),
    ],
    "a file through a link": [directory("real"), link("alias", "real"), entry("alias/file", b"x")],
    "a directory through a link": [directory("real"), link("alias", "real"), directory("alias/sub")],
    "a link through a link": [directory("real"), link("alias", "real"), link("alias/sub", "x")],
    "a file over a link": [link("name", "elsewhere"), entry("name", b"x")],
    "the same name twice": [entry("name", b"x"), entry("name", b"y")],
    "the same directory twice": [directory("name"), directory("name")],
    "a directory over a link": [directory("real"), link("name", "real"), directory("name")],
    "a file below a file": [entry("name", b"x"), entry("name/sub", b"x")],
    "a missing directory": [entry("missing/file", b"x")],
    "a hard link": [entry("a", b"x"), entry("b", type=tarfile.LNKTYPE, linkname="a")],
    "a device": [entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "a pipe": [entry("pipe", type=tarfile.FIFOTYPE)],
    "a setuid program": [entry("su", b"x", mode=0o4755)],
    "a sparse file": [entry("sparse", type=tarfile.GNUTYPE_SPARSE)],
    "a pax header": [PAX, entry("fine", b"x")],
    "a link with content": [(link("a", "b")[0], b"")],
    "a name that is too long": [entry("/".join(["d" * 200] * 20), b"x")],
    "a part that is too long": [entry("d" * 256, b"x")],
}
ATTACKS["a link with content"][0][0].size = 512


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_that_could_do_harm_is_refused_and_leaves_nothing(tmp_path: Path, attack: str) -> None:
    write_archive(tmp_path / "artifact", entry("legitimate", b"fine"), *ATTACKS[attack])
    with pytest.raises(TrustError, match="is refused"):
        unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY)
    assert leftovers(tmp_path) == ["artifact"]


def test_a_legitimate_archive_made_the_same_way_is_unpacked(tmp_path: Path) -> None:
    write_archive(
        tmp_path / "artifact", directory("a"), entry("a/b", b"x"), link("c", "a/b"), link("a/d", "../c")
    )
    unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY)
    assert (tmp_path / "there/a/d").read_bytes() == b"x"


def test_an_archive_with_a_negative_size_is_refused(tmp_path: Path) -> None:
    info, _ = entry("name", b"")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 12  # -1 in base 256
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "artifact").write_bytes(zstandard.compress(bytes(block) + bytes(1_024)))
    with pytest.raises(TrustError, match="impossible size"):
        unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY)


def test_more_bytes_than_were_signed_are_not_written(tmp_path: Path) -> None:
    write_archive(tmp_path / "artifact", entry("a", b"x" * 600), entry("b", b"x" * 600))
    with pytest.raises(TrustError, match="1000 bytes that were signed"):
        unpack_tree(tmp_path / "artifact", tmp_path / "there", TreeRecipe(unpacked_bytes=1_000, entries=9))


def test_more_entries_than_were_signed_are_not_made(tmp_path: Path) -> None:
    write_archive(tmp_path / "artifact", *[directory(f"d{number}") for number in range(10)])
    with pytest.raises(TrustError, match="more than the 9 entries"):
        unpack_tree(tmp_path / "artifact", tmp_path / "there", TreeRecipe(unpacked_bytes=0, entries=9))


def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    """200 GB of zeros in a few kilobytes: nothing of it is written, nor decompressed."""
    info = tarfile.TarInfo("bomb")
    info.size = 200 * limits.GIB
    compressor = zstandard.ZstdCompressor().compressobj()
    data = compressor.compress(info.tobuf(tarfile.GNU_FORMAT))
    for _ in range(64):
        data += compressor.compress(bytes(limits.MIB))
    (tmp_path / "artifact").write_bytes(data + compressor.flush())
    assert (tmp_path / "artifact").stat().st_size < 100_000
    with pytest.raises(TrustError, match="that were signed"):
        unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY)


def test_a_window_that_would_take_too_much_memory_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(random.Random(1).randbytes(1_000)) + compressor.flush()
    (tmp_path / "artifact").write_bytes(data)
    with pytest.raises(TrustError, match="compression"):
        unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY)


def test_anything_after_the_end_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "artifact", entry("a", b"x"))
    whole = path.read_bytes()
    for after in (b"x", whole):
        path.write_bytes(whole + after)
        with pytest.raises(TrustError, match=r"follows its end|Unknown frame"):
            unpack_tree(path, tmp_path / "there", ROOMY)
    for end in (bytes(1_024) + b"x" + bytes(511), bytes(200_000)):
        write_archive(path, entry("a", b"x"), end=end)
        with pytest.raises(TrustError, match="follows its end"):
            unpack_tree(path, tmp_path / "there", ROOMY)


def test_a_truncated_archive_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(8):
        (source / f"file{number}").write_bytes(random.Random(number).randbytes(3_000))
    pack_tree(source, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for cut in {0, 1, 5, 100, *range(500, len(whole), 997), len(whole) - 5}:
        (tmp_path / "cut").write_bytes(whole[:cut])
        with pytest.raises(TrustError):
            unpack_tree(tmp_path / "cut", tmp_path / "there", ROOMY)
    assert leftovers(tmp_path) == ["cut", "source", "whole"]


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_an_altered_archive_is_refused_or_unpacks_inside_its_directory(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("fuzz")
    raw = io.BytesIO()
    for info, content in [directory("a"), entry("a/b", b"x" * 700), link("c", "a/b"), entry("d" * 120, b"y")]:
        raw.write(info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512))
    altered = bytearray(raw.getvalue() + bytes(1_024))
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(altered) - 1))
        altered[position] = data.draw(st.integers(0, 255))
        start = position // 512 * 512  # most alterations would die at the header's checksum
        block = altered[start : start + 512]
        block[148:156] = b" " * 8
        altered[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    (base / "artifact").write_bytes(zstandard.compress(bytes(altered)))
    try:
        unpack_tree(base / "artifact", base / "there", ROOMY)
    except TrustError:
        assert leftovers(base) == ["artifact"]
    else:
        assert leftovers(base) == ["artifact", "there"]
        for path in (base / "there").rglob("*"):
            assert path.resolve().is_relative_to((base / "there").resolve())


@given(st.binary(max_size=2_000))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused_with_our_error(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    base = tmp_path_factory.mktemp("junk")
    (base / "artifact").write_bytes(junk)
    with pytest.raises(TrustError):
        unpack_tree(base / "artifact", base / "there", ROOMY)
    (base / "artifact").write_bytes(zstandard.compress(junk))
    with pytest.raises(TrustError):
        unpack_tree(base / "artifact", base / "there", ROOMY)


# Accidents -----------------------------------------------------------------------------------------


def test_an_existing_destination_is_not_touched(tmp_path: Path) -> None:
    write_archive(tmp_path / "artifact", entry("a", b"x"))
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists"):
        unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY)


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    write_archive(tmp_path / "artifact", entry("a", b"x"))
    left = tmp_path / ".there.unpacking"
    (left / "locked").mkdir(parents=True)
    (left / "locked/old").write_bytes(b"half")
    (left / "locked").chmod(0o500)
    unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY)
    assert leftovers(tmp_path) == ["artifact", "there"]
    assert leftovers(tmp_path / "there") == ["a"]


def test_whoever_stops_it_in_the_middle_finds_nothing_left(tmp_path: Path) -> None:
    write_archive(tmp_path / "artifact", *[entry(f"f{number}", b"x") for number in range(10)])
    calls = 0

    def checkpoint() -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY, checkpoint=checkpoint)
    assert leftovers(tmp_path) == ["artifact"]


def test_a_missing_artifact_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY)
    assert leftovers(tmp_path) == []


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A real file system of one MiB."""
    mounted = directory / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "p2pdist-test", str(mounted)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_full_disk_is_unavailable_and_left_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / f"file{number}").write_bytes(random.Random(number).randbytes(500_000))
    packed = pack_tree(source, tmp_path / "artifact")
    recipe = TreeRecipe(unpacked_bytes=packed.unpacked_bytes, entries=packed.entries)
    with small_disk(tmp_path) as disk:
        with pytest.raises(Unavailable, match=r"No space left.*free some space"):
            unpack_tree(tmp_path / "artifact", disk / "there", recipe)
        assert leftovers(disk) == []
        with pytest.raises(Unavailable, match="No space left"):
            pack_tree(source, disk / "artifact")
        assert leftovers(disk) == []


def test_a_disk_error_at_the_end_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    write_archive(tmp_path / "artifact", entry("a", b"x"))
    monkeypatch.setattr(archive_module, "_sync_file_system", fail)
    with pytest.raises(Unavailable, match="Input/output error"):
        unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY)
    assert leftovers(tmp_path) == ["artifact"]


def test_permissions_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    write_archive(tmp_path / "artifact", directory("a"), entry("a/b", b"x", mode=0o600))
    before = os.umask(0o077)
    try:
        unpack_tree(tmp_path / "artifact", tmp_path / "there", ROOMY)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / "there" / name).stat().st_mode) for name in (".", "a", "a/b")]
    assert modes == [0o755, 0o755, 0o644]


def test_a_file_that_changes_while_it_is_packed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "log").write_bytes(b"one line\n")
    real = archive_module._copy_file

    def grow(path: Path, size: int, out: zstandard.ZstdCompressionWriter) -> None:
        path.write_bytes(b"one line\nanother\n")
        real(path, size, out)

    monkeypatch.setattr(archive_module, "_copy_file", grow)
    with pytest.raises(P2PDistError, match="changed while it was packed"):
        pack_tree(tree, tmp_path / "artifact")
