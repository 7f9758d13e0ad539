"""Which deltas are made, and which one is taken."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.deltas import bases_for, choose_delta, is_worth, memory_bytes, window_log
from p2pdist.ids import ChannelName, InfoHash, ProductName, TargetPath
from p2pdist.trust.catalog import Delta, FileRecipe, Release

MUCH = 2**40

numbers = st.integers(min_value=1, max_value=9)
releases = st.builds(
    lambda channel, product, platform, sequence, content: release(
        sequence, channel=channel, product=product, platform=platform, content=content
    ),
    st.sampled_from(["stable", "beta"]),
    st.sampled_from(["app", "tool"]),
    st.sampled_from(["any", "linux"]),
    numbers,
    numbers,
)
deltas = st.builds(
    lambda base, length, packing, unpacked: delta(base, length=length, packing=packing, unpacked=unpacked),
    numbers,
    st.integers(1, 2_000),
    st.sampled_from(["", "known", "unknown"]),
    st.integers(0, limits.DELTA_UNPACKED_BYTES_MAX),
)


def release(
    sequence: int,
    *,
    channel: str = "stable",
    product: str = "app",
    platform: str = "any",
    content: int = 0,
    offered: tuple[Delta, ...] = (),
) -> Release:
    return Release(
        target=TargetPath(f"{channel}/{product}/{sequence}/{product}-{platform}"),
        channel=ChannelName(channel),
        product=ProductName(product),
        version=str(sequence),
        sequence=sequence,
        platform=platform,
        length=1_000,
        sha256=f"{content or sequence:064x}",
        info_hash=InfoHash(f"{content or sequence:064x}"),
        recipe=FileRecipe(path="/a"),
        deltas=offered,
    )


def delta(base: int, *, length: int = 100, packing: str = "", unpacked: int = 1_000) -> Delta:
    return Delta(
        base=f"{base:064x}",
        base_sha256=f"{base:064x}",
        base_length=1_000,
        info_hash=f"{base + 1_000:064x}",
        length=length,
        sha256=f"{base + 1_000:064x}",
        window_log=20,
        packing=packing,
        base_unpacked=unpacked,
        unpacked=unpacked,
    )


@given(releases, st.lists(releases, max_size=20))
def test_bases_are_the_newest_older_releases_of_the_same_product_platform_and_channel(
    new: Release, known: list[Release]
) -> None:
    line = (new.channel, new.product, new.platform)
    bases = bases_for(new, known)
    assert len(bases) <= limits.DELTA_BASES
    assert all((b.channel, b.product, b.platform) == line and b.sequence < new.sequence for b in bases)
    assert len({b.sha256 for b in bases} | {new.sha256}) == len(bases) + 1
    chosen = {b.sha256 for b in bases}
    for other in known:
        fits = (other.channel, other.product, other.platform) == line and other.sequence < new.sequence
        if fits and other.sha256 not in chosen | {new.sha256}:
            assert len(bases) == limits.DELTA_BASES and all(b.sequence >= other.sequence for b in bases)


@pytest.mark.parametrize(
    ("delta_bytes", "artifact_bytes", "worth"),
    [(700_000, 1_000_000, True), (700_001, 1_000_000, False), (100, 50_000, False)],
)
def test_a_delta_is_kept_if_it_saves_thirty_percent_of_what_is_not_small(
    delta_bytes: int, artifact_bytes: int, worth: bool
) -> None:
    assert is_worth(delta_bytes, artifact_bytes) == worth


@given(st.integers(1, limits.DELTA_UNPACKED_BYTES_MAX), st.integers(1, limits.DELTA_UNPACKED_BYTES_MAX))
def test_the_window_reaches_over_both_contents_and_never_beyond_its_limit(base: int, new: int) -> None:
    assert base + new <= 1 << window_log(base, new) <= 1 << limits.DELTA_WINDOW_LOG_MAX


@given(st.lists(deltas, max_size=8), st.sets(numbers), st.integers(0, 2**31))
def test_a_node_takes_the_smallest_delta_of_which_it_has_the_base_the_packing_and_the_memory(
    offered: list[Delta], here: set[int], free: int
) -> None:
    new = release(99, offered=tuple(offered))
    held = {f"{number:064x}" for number in here}

    def usable(each: Delta) -> bool:
        return (
            each.base in held
            and each.packing in ("", "known")
            and each.length < new.length
            and memory_bytes(each) <= free
        )

    taken = choose_delta(new, has=lambda d: d.base in held, packings=("", "known"), free_bytes=free)
    if taken is None:
        assert not any(map(usable, offered))
    else:
        assert usable(taken) and all(taken.length <= each.length for each in offered if usable(each))


def test_a_release_on_its_way_as_a_delta_has_the_deltas_bytes_and_is_still_called_what_it_is() -> None:
    new = release(2, offered=(delta(1, length=77),))
    carried, whole = new.contents()
    assert whole is new
    assert (carried.target, carried.length, carried.info_hash) == (new.target, 77, f"{1_001:064x}")
    assert carried.contents() == (carried,)


def test_a_release_without_deltas_is_taken_whole() -> None:
    whole = msgspec.structs.replace(release(2), deltas=())
    assert choose_delta(whole, has=lambda d: True, packings=("",), free_bytes=MUCH) is None
