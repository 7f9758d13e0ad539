"""Tokens for sources that anybody can invent."""

from __future__ import annotations

import tracemalloc

from p2pdist.core.buckets import Bucket, SourceBuckets


def buckets(count: int = 64, *, key: bytes = bytes(16)) -> SourceBuckets:
    return SourceBuckets(count, per_s=2, burst=3, key=key, now=0.0)


def test_a_bucket_gives_a_burst_and_then_its_rate() -> None:
    bucket = Bucket(per_s=2, burst=3, now=0.0)

    assert [bucket.take(now) for now in (0, 0, 0, 0, 0.4, 0.5, 0.9, 1.0, 99, 99, 99, 99)] == [
        True, True, True, False, False, True, False, True, True, True, True, False,
    ]  # fmt: skip


def test_a_source_gets_a_burst_and_then_its_rate() -> None:
    some = buckets()

    assert [some.take(b"a", now) for now in (0, 0, 0, 0, 0.4, 0.5, 0.9, 1.0, 99, 99, 99, 99)] == [
        True, True, True, False, False, True, False, True, True, True, True, False,
    ]  # fmt: skip


def test_a_flood_from_one_source_leaves_the_others_alone() -> None:
    some = buckets()
    while some.take(b"flood", 0.0):
        pass

    others = [some.take(number.to_bytes(4, "big"), 0.0) for number in range(64)]

    assert others.count(True) >= 60  # of 64, one or two share the flood's bucket by chance


def test_who_shares_a_bucket_depends_on_the_key() -> None:
    shared = set()
    for key in (b"k" * 16, b"l" * 16):
        some = buckets(key=key)
        while some.take(b"flood", 0.0):
            pass
        shared.add(frozenset(n for n in range(1000) if not some.take(n.to_bytes(4, "big"), 0.0)))

    assert len(shared) == 2


def test_memory_does_not_grow_with_sources() -> None:
    some = buckets()
    tracemalloc.start()
    for number in range(20_000):
        some.take(number.to_bytes(4, "big"), 0.0)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert grown < 4_096
