"""``p2pdist-sign add`` makes deltas, signs what they are, and publishes them beside the artifacts."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pdist.install.packing import NONE, TREE
from p2pdist.install.patch import Patch, apply_patch
from p2pdist.trust.catalog import Delta, ReleaseCustom
from p2pdist.trust.contents import channel_role
from p2pdist.trust.repository import Repository
from tests.sign.conftest import Desk

pytestmark = pytest.mark.slow  # each runs the program several times


def content(version: str, seed: int = 0) -> bytes:
    rng = random.Random(seed)
    return rng.randbytes(100_000) + version.encode() + rng.randbytes(100_000)


def add_file(desk: Desk, version: str, *options: str, seed: int = 0) -> Any:
    path = desk.file("app.bin", content(version, seed))
    named = ("--product", "app", "--version", version, "--to", "/opt/app.bin")
    (added,) = desk.data("add", "stable", path, *named, *options)["added"]
    return added


def add_tree(desk: Desk, version: str) -> Any:
    tree = desk.home / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    rng = random.Random(0)
    for number in range(8):
        (tree / f"f{number}").write_text(rng.randbytes(10_000).hex() + version + rng.randbytes(10_000).hex())
    (added,) = desk.data("add", "stable", tree, "--product", "tool", "--version", version)["added"]
    return added


def custom(desk: Desk, target: str) -> ReleaseCustom:
    state = Repository(desk.repository).load()
    role = channel_role(target.split("/")[0])  # type: ignore[arg-type]
    return msgspec.convert(state.latest(role).signed.targets[target].custom, ReleaseCustom)


def artifact(desk: Desk, info_hash: str) -> Path:
    return Repository(desk.repository).artifacts / info_hash


def applied(desk: Desk, new: Any, delta: Delta) -> bytes:
    result = desk.home / "result"
    result.unlink(missing_ok=True)
    apply_patch(
        Patch(
            base=str(artifact(desk, delta.base)),
            delta=str(artifact(desk, delta.info_hash)),
            result=str(result),
            how=delta,
            length=new["length"],
            sha256=new["sha256"],
        )
    )
    return result.read_bytes()


def test_a_release_gets_a_delta_from_each_of_the_last_three_before_it(desk: Desk) -> None:
    older = [add_file(desk, version) for version in ("1", "2", "3", "4")]
    new = add_file(desk, "5")
    assert [each["from"] for each in new["deltas"]] == [each["target"] for each in older[:0:-1]]
    signed = custom(desk, new["target"]).deltas
    assert {delta.base for delta in signed} == {each["info_hash"] for each in older[1:]}
    for delta in signed:
        assert delta.packing == NONE and delta.length * 20 < new["length"]
        assert applied(desk, new, delta) == content("5")


def test_who_signs_is_told_of_the_deltas(desk: Desk) -> None:
    old = add_file(desk, "1")
    add_file(desk, "2")
    assert f"deltas: from {old['info_hash'][:12]}… 44 bytes" in desk.done("diff")


def test_trees_are_compared_unpacked(desk: Desk) -> None:
    add_tree(desk, "1")
    new = add_tree(desk, "2")
    (delta,) = custom(desk, new["target"]).deltas
    assert delta.packing == TREE and delta.length * 20 < new["length"]
    assert applied(desk, new, delta) == artifact(desk, new["info_hash"]).read_bytes()


def test_what_saves_less_than_thirty_percent_is_not_kept_and_the_reason_is_told(desk: Desk) -> None:
    old = add_file(desk, "1", seed=1)
    new = add_file(desk, "2", seed=2)
    assert new["deltas"] == [] and "it would save 0 %" in new["declined"][old["target"]]
    assert custom(desk, new["target"]).deltas == []
    kept = {path.name for path in Repository(desk.repository).artifacts.iterdir()}
    assert kept == {old["info_hash"], new["info_hash"]}


def test_other_platforms_and_other_products_are_no_bases(desk: Desk) -> None:
    add_file(desk, "1", "--platform", "linux-x86_64")
    new = add_file(desk, "2", "--platform", "linux-aarch64")
    assert new["deltas"] == [] and new["declined"] == {}


def test_no_deltas_are_made_where_they_are_not_wanted(desk: Desk) -> None:
    add_file(desk, "1")
    assert add_file(desk, "2", "--no-deltas")["deltas"] == []


def test_what_has_mirrors_gets_deltas_only_where_they_are_asked_for(desk: Desk) -> None:
    add_file(desk, "1")
    mirror = ("--mirror", "https://vendor.example/app.bin")
    assert add_file(desk, "2", *mirror)["deltas"] == []
    assert len(add_file(desk, "3", *mirror, "--deltas")["deltas"]) == 2


def test_adding_the_same_content_again_keeps_its_deltas(desk: Desk) -> None:
    add_file(desk, "1")
    first = add_file(desk, "2")
    before = custom(desk, first["target"])
    assert add_file(desk, "2")["outcome"] == "unchanged"
    assert add_file(desk, "2", "--mode", "0600")["outcome"] == "changed"
    assert custom(desk, first["target"]).deltas == before.deltas


def test_adding_it_again_without_deltas_takes_them_out(desk: Desk) -> None:
    add_file(desk, "1")
    first = add_file(desk, "2")
    assert add_file(desk, "2", "--no-deltas")["outcome"] == "changed"
    assert custom(desk, first["target"]).deltas == []


def test_a_base_whose_content_is_gone_is_named(desk: Desk) -> None:
    old = add_file(desk, "1")
    artifact(desk, old["info_hash"]).unlink()
    assert add_file(desk, "2")["declined"] == {old["target"]: "its content is not in the repository"}


def test_a_publication_holds_the_deltas_and_loses_them_with_their_release(desk: Desk) -> None:
    add_file(desk, "1")
    new = add_file(desk, "2")
    (delta,) = new["deltas"]
    desk.sign()
    desk.publish()
    published = desk.home / "publication"
    assert (published / "artifacts" / delta["info_hash"]).stat().st_size == delta["length"]
    assert (published / "torrents" / f"{delta['info_hash']}.torrent").exists()
    desk.done("verify", published)
    (published / "artifacts" / delta["info_hash"]).chmod(0o600)
    (published / "artifacts" / delta["info_hash"]).write_bytes(b"altered")
    assert "is not what was signed" in desk.refused(4, "verify", published)
    desk.done("revoke", "target", "app@2")
    desk.sign()
    desk.publish()
    assert not (published / "artifacts" / delta["info_hash"]).exists()
    assert not (published / "torrents" / f"{delta['info_hash']}.torrent").exists()
