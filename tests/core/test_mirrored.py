"""Which releases a reading of mirrors is about, and what the admin server does not serve meanwhile."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.desired import Wishes
from p2pdist.core.mirrored import choose, fits, reads, wish_for, withheld
from p2pdist.ids import ChannelName, FleetName, InfoHash, NodeId, ProductName, TargetPath, node_id_of
from p2pdist.trust.catalog import FileRecipe, Mirror, Release
from p2pdist.wire.mirroring import ReadMirrors

SERVER, ONE, OTHER = (node_id_of(letter * 32) for letter in (b"s", b"1", b"2"))


def release(target: str, *, sequence: int = 1, platform: str = "any", mirrored: bool = True) -> Release:
    channel, product, version, _ = target.split("/")
    return Release(
        target=TargetPath(target),
        channel=ChannelName(channel),
        product=ProductName(product),
        version=version,
        sequence=sequence,
        platform=platform,
        length=1,
        sha256="0" * 64,
        info_hash=InfoHash(hashlib.sha256(target.encode()).hexdigest()),
        recipe=FileRecipe(path="/etc/x"),
        mirrors=(Mirror(url="https://vendor.example/f"),) if mirrored else (),
    )


OLD = release("stable/app/1/app.bin")
NEW = release("stable/app/2/app.bin", sequence=2)
ARM = release("stable/app/2/app-arm.bin", sequence=2, platform="linux-aarch64")
OWN = release("stable/own/1/own.bin", mirrored=False)
BETA = release("beta/app/3/app.bin", sequence=3)
SIGNED = {each.target: each for each in (OLD, NEW, ARM, OWN, BETA)}


def test_a_target_names_its_release_and_a_pattern_the_newest_of_each_product_and_platform() -> None:
    assert choose([OLD.target], SIGNED) == ((OLD,), ())
    assert choose(["stable/app/*"], SIGNED) == ((ARM, NEW), ())
    assert choose(["*/app/*"], SIGNED) == ((BETA, ARM, NEW), ())
    assert choose([OLD.target, "stable/app/*", NEW.target], SIGNED) == ((OLD, ARM, NEW), ())


def test_a_target_fits_itself_and_the_patterns_around_it() -> None:
    assert fits([OLD.target], OLD.target)
    assert fits(["none/*", "stable/*"], OLD.target)
    assert not fits(["beta/*", NEW.target], OLD.target)


def test_what_names_nothing_is_said() -> None:
    assert choose(["stable/app/9/app.bin", "stable/own/*"], SIGNED) == (
        (),
        ("stable/app/9/app.bin", "stable/own/*"),
    )


@given(st.permutations([OLD.target, "beta/*", "stable/app/*", "stable/none/*", ARM.target]))
def test_everybody_reads_in_the_same_order(targets: list[str]) -> None:
    assert choose(targets, SIGNED).releases == (BETA, OLD, ARM, NEW)


def reading(**nodes: list[str]) -> dict[NodeId, tuple[Release, ...]]:
    named = {"server": SERVER, "one": ONE, "other": OTHER}
    works = {named[name]: [ReadMirrors(targets=targets)] for name, targets in nodes.items() if targets}
    return reads(works, SIGNED)


def test_the_server_does_not_serve_what_others_read_unless_it_reads_it_too() -> None:
    assert withheld(reading(one=[OLD.target], other=[NEW.target]), SERVER) == {OLD.info_hash, NEW.info_hash}
    assert withheld(reading(one=[OLD.target, NEW.target], server=[NEW.target]), SERVER) == {OLD.info_hash}
    assert withheld(reading(server=[OLD.target]), SERVER) == frozenset()


def test_what_has_no_mirrors_is_served_whatever_a_work_says() -> None:
    assert withheld(reading(one=[OWN.target]), SERVER) == frozenset()


def test_a_point_is_to_hold_what_it_reads_and_to_be_in_its_swarm() -> None:
    before = Wishes(
        deployments=(),
        swarms=(),
        prefetch=(OWN.target,),
        keep=(OLD.target,),
    )
    wishes = wish_for(before, [OLD, BETA], FleetName("acme"))
    assert wishes.prefetch == (OWN.target, OLD.target, BETA.target)
    assert wishes.keep == ()
    assert [swarm.split(".")[0] for swarm in wishes.swarms] == ["beta", "stable"]
