"""Artifacts made from older ones: trees, Debian packages, files; and what is made of hostile deltas."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
import trio
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.deltas import window_log
from p2pdist.errors import P2PDistError, TrustError, Unavailable
from p2pdist.install import patching
from p2pdist.install.archive import pack_tree
from p2pdist.install.packing import DEB, NONE, TREE, packed, unpack
from p2pdist.install.patch import Patch, apply_patch
from p2pdist.install.patching import apply_in_process
from p2pdist.sign.deltas import write_delta
from p2pdist.trust.catalog import Delta

pytestmark = pytest.mark.slow  # processes, and many examples

SMALL = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def patch_of(base: Path, new: Path, packing: str, directory: Path) -> Patch:
    before, after = unpack(base, packing), unpack(new, packing)
    delta = directory / "delta"
    write_delta(before, after, delta)
    return Patch(
        base=str(base),
        delta=str(delta),
        result=str(directory / "result"),
        how=Delta(
            base="0" * 64,
            base_sha256=sha256(base),
            base_length=base.stat().st_size,
            info_hash="1" * 64,
            length=delta.stat().st_size,
            sha256=sha256(delta),
            window_log=window_log(len(before), len(after)),
            packing=packing,
            base_unpacked=len(before),
            unpacked=len(after),
        ),
        length=new.stat().st_size,
        sha256=sha256(new),
    )


def files(directory: Path, version: str) -> tuple[Path, Path]:
    """Two files, the second of which has a few bytes of its own in the middle."""
    rng = random.Random(0)
    base, new = directory / "base", directory / "new"
    first, second = rng.randbytes(150_000), rng.randbytes(150_000)
    base.write_bytes(first + second)
    new.write_bytes(first + version.encode() + second)
    return base, new


def tree(directory: Path, version: str) -> Path:
    """A tree most of which compresses badly, with its version in each file."""
    source = directory / f"tree-{version}"
    source.mkdir()
    rng = random.Random(0)
    for number in range(10):
        text = rng.randbytes(20_000).hex()
        (source / f"file{number}").write_text(text[:20_000] + version + text[20_000:])
    artifact = directory / f"{version}.tar.zst"
    pack_tree(source, artifact)
    return artifact


def debian_package(directory: Path, version: str, *options: str) -> Path:
    root = directory / f"deb-{version}"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        f"Package: app\nVersion: {version}\nArchitecture: all\nMaintainer: me\nDescription: an app\n"
    )
    (root / "opt").mkdir()
    text = random.Random(0).randbytes(100_000).hex()
    (root / "opt" / "app").write_text(text[:100_000] + version + text[100_000:])
    artifact = directory / f"app_{version}.deb"
    subprocess.run(
        ["dpkg-deb", *options, "--build", str(root), str(artifact)], check=True, capture_output=True
    )
    return artifact


def test_a_tree_is_made_from_the_one_before_byte_for_byte(tmp_path: Path) -> None:
    patch = patch_of(tree(tmp_path, "1.0"), new := tree(tmp_path, "2.0"), TREE, tmp_path)
    apply_patch(patch)
    assert Path(patch.result).read_bytes() == new.read_bytes()
    assert patch.how.length * 20 < patch.length


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not here")
def test_a_debian_package_is_made_from_the_one_before_byte_for_byte(tmp_path: Path) -> None:
    base, new = debian_package(tmp_path, "1.0", "-Zxz"), debian_package(tmp_path, "2.0", "-Zxz")
    patch = patch_of(base, new, DEB, tmp_path)
    apply_patch(patch)
    assert Path(patch.result).read_bytes() == new.read_bytes()
    assert patch.how.length * 20 < patch.length


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("xz") is None, reason="xz is not here")
def test_data_of_several_blocks_is_compressed_as_threaded_xz_does(tmp_path: Path) -> None:
    content = b"a line that comes again and again\n" * 745_000 + random.Random(0).randbytes(10_000)
    (tmp_path / "data").write_bytes(content)
    subprocess.run(["xz", "-6", "-T2", "-k", str(tmp_path / "data")], check=True)
    front = b"!<arch>\n" + b"data.tar.xz".ljust(48) + b"0".ljust(10) + b"`\n"
    made = io.BytesIO()
    with packed(made, DEB) as out:
        out.write(front[:30])
        out.write(front[30:] + content)
    assert made.getvalue().removeprefix(front).rstrip(b"\n") == (tmp_path / "data.xz").read_bytes()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not here")
def test_a_debian_package_with_another_compression_is_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"no data\.tar\.xz"):
        unpack(debian_package(tmp_path, "1.0", "-Zgzip"), DEB)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not here")
def test_the_zstd_program_applies_what_we_make(tmp_path: Path) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    made = tmp_path / "made"
    subprocess.run(
        ["zstd", "-q", "-d", f"--patch-from={base}", "-o", str(made), "--", patch.delta], check=True
    )
    assert made.read_bytes() == new.read_bytes()


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not here")
def test_what_the_zstd_program_makes_is_applied(tmp_path: Path) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    subprocess.run(["zstd", "-q", "-f", f"--patch-from={base}", "-o", patch.delta, str(new)], check=True)
    apply_patch(patch)
    assert Path(patch.result).read_bytes() == new.read_bytes()


def test_a_base_that_was_altered_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    base.write_bytes(b"x" + base.read_bytes()[1:])
    with pytest.raises(TrustError, match="older artifact here is not what was signed"):
        apply_patch(patch)
    assert not Path(patch.result).exists()


def test_a_result_that_is_not_what_was_signed_is_thrown_away(tmp_path: Path) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    with pytest.raises(TrustError, match="does not make what was signed"):
        apply_patch(msgspec.structs.replace(patch, sha256="5" * 64))
    assert not Path(patch.result).exists()


def test_a_packing_of_another_version_is_refused(tmp_path: Path) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    how = msgspec.structs.replace(patch.how, packing="zstd-9 9.9.9")
    with pytest.raises(TrustError, match=r"cannot pack 'zstd-9 9\.9\.9'"):
        apply_patch(msgspec.structs.replace(patch, how=how))


def test_a_delta_that_announces_more_than_is_signed_makes_nothing(tmp_path: Path) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(50_000_000))
    Path(patch.delta).write_bytes(bomb)
    with pytest.raises(TrustError, match="50000000 bytes"):
        apply_patch(patch)


def test_a_delta_that_does_not_say_how_much_it_makes_makes_nothing(tmp_path: Path) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    Path(patch.delta).write_bytes(compressor.compress(bytes(50_000_000)) + compressor.flush())
    with pytest.raises(TrustError):
        apply_patch(patch)
    assert not Path(patch.result).exists()


@SMALL
@given(data=st.data())
def test_an_altered_delta_makes_what_was_signed_or_nothing(tmp_path: Path, data: st.DataObject) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    delta = bytearray(Path(patch.delta).read_bytes())
    kind = data.draw(st.sampled_from(["flip", "cut", "replace", "append"]))
    if kind == "flip":
        for _ in range(data.draw(st.integers(1, 4))):
            delta[data.draw(st.integers(0, len(delta) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del delta[data.draw(st.integers(0, len(delta) - 1)) :]
    elif kind == "append":
        delta += data.draw(st.binary(max_size=40))
    else:
        delta = bytearray(data.draw(st.binary(max_size=200)))
    Path(patch.delta).write_bytes(delta)
    Path(patch.result).unlink(missing_ok=True)
    try:
        apply_patch(patch)
    except P2PDistError:
        assert not Path(patch.result).exists()
    else:
        assert sha256(Path(patch.result)) == patch.sha256


@SMALL
@given(st.binary(max_size=300), st.sampled_from([TREE, DEB]))
def test_what_is_no_such_artifact_is_never_unpacked(tmp_path: Path, content: bytes, packing: str) -> None:
    (tmp_path / "artifact").write_bytes((b"!<arch>\n" if packing == DEB else b"") + content)
    with pytest.raises(TrustError):
        unpack(tmp_path / "artifact", packing, length=1_000)


def test_unpacking_ends_where_more_comes_than_is_signed(tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(zstandard.ZstdCompressor(level=1).compress(bytes(50_000_000)))
    with pytest.raises(TrustError, match="another length than 1000 bytes"):
        unpack(tmp_path / "bomb", TREE, length=1_000)


async def test_a_process_of_its_own_makes_the_result(tmp_path: Path) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    Path(patch.result).write_bytes(b"of a life before")
    await apply_in_process(patch)
    assert Path(patch.result).read_bytes() == new.read_bytes()


async def test_what_goes_wrong_in_the_process_is_told_here(tmp_path: Path) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    base.unlink()
    with pytest.raises(TrustError, match="could not be read"):
        await apply_in_process(patch)


async def test_a_process_that_cannot_be_started_makes_it_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    monkeypatch.setattr(patching.sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(Unavailable, match="no process could be started"):
        await apply_in_process(patch)


async def test_a_process_that_takes_too_long_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, new = files(tmp_path, "2.0")
    patch = patch_of(base, new, NONE, tmp_path)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(patching.sys, "executable", str(program))
    monkeypatch.setattr(limits, "DELTA_WORK_S", 0.2)
    with trio.fail_after(20), pytest.raises(Unavailable, match="took more than"):
        await apply_in_process(patch)
