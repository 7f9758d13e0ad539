"""What a distribution point keeps on its disk."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.storage import Held, plan_storage
from p2pdist.ids import InfoHash

A, B, C, D = (InfoHash(letter * 64) for letter in "abcd")


def held(info_hash: InfoHash, length: int, used: int = 0) -> Held:
    return Held(info_hash=info_hash, length=length, used=used)


def test_what_is_needed_is_fetched_in_the_order_of_urgency() -> None:
    plan = plan_storage(needed=[(B, 10), (A, 10)], keep=[], held=[], quota_bytes=100)
    assert plan.fetch == (B, A)


def test_without_a_quota_nothing_is_evicted() -> None:
    plan = plan_storage(needed=[(A, 10**12)], keep=[], held=[held(B, 10**12)], quota_bytes=0)
    assert (plan.fetch, plan.evict) == ((A,), ())


def test_the_least_recently_used_goes_first() -> None:
    plan = plan_storage(
        needed=[(A, 50)], keep=[], held=[held(B, 30, used=1), held(C, 30, used=2)], quota_bytes=100
    )
    assert plan.evict == (B,)


def test_what_is_needed_is_never_evicted_for_something_less_urgent() -> None:
    plan = plan_storage(needed=[(A, 60), (B, 60)], keep=[], held=[held(A, 60)], quota_bytes=100)
    assert plan.evict == ()
    assert B in plan.refused
    assert "do not fit" in plan.refused[B]


def test_what_is_needed_and_there_stays_and_a_more_urgent_newcomer_waits() -> None:
    plan = plan_storage(needed=[(A, 60), (B, 60)], keep=[], held=[held(B, 60)], quota_bytes=100)
    assert (plan.fetch, plan.evict, set(plan.refused)) == ((), (), {A})


def test_a_quota_that_became_smaller_costs_the_least_urgent_of_what_is_needed() -> None:
    plan = plan_storage(needed=[(A, 60), (B, 60)], keep=[], held=[held(A, 60), held(B, 60)], quota_bytes=100)
    assert (plan.evict, set(plan.refused)) == ((B,), {B})


def test_what_is_kept_outlives_what_merely_lies_there() -> None:
    plan = plan_storage(
        needed=[(A, 40)], keep=[B], held=[held(B, 40, used=0), held(C, 40, used=9)], quota_bytes=100
    )
    assert plan.evict == (C,)


ARTIFACTS = st.lists(st.tuples(st.sampled_from([A, B, C, D]), st.integers(0, 50)), unique_by=lambda i: i[0])
KEEP = st.lists(st.sampled_from([A, B, C, D]), unique=True)
Artifacts = list[tuple[InfoHash, int]]


@given(ARTIFACTS, ARTIFACTS, KEEP, st.integers(1, 120))
def test_a_plan_stays_within_the_quota(
    needed: Artifacts, there: Artifacts, keep: list[InfoHash], quota: int
) -> None:
    plan = plan_storage(
        needed=needed, keep=keep, held=[held(h, size) for h, size in there], quota_bytes=quota
    )
    lengths = dict(there) | dict(needed)
    after = ({h for h, _ in there} - set(plan.evict)) | set(plan.fetch)
    assert sum(lengths[h] for h in after) <= quota
    assert not set(plan.fetch) & set(plan.evict)
    assert set(plan.refused) <= {h for h, _ in needed}


@given(ARTIFACTS, ARTIFACTS, KEEP, st.integers(1, 120))
def test_what_is_there_and_needed_goes_only_when_all_of_it_together_does_not_fit(
    needed: Artifacts, there: Artifacts, keep: list[InfoHash], quota: int
) -> None:
    lengths = dict(needed)
    on_disk = [held(h, lengths.get(h, size)) for h, size in there]
    plan = plan_storage(needed=needed, keep=keep, held=on_disk, quota_bytes=quota)
    needed_there = {item.info_hash for item in on_disk} & set(lengths)
    if needed_there & set(plan.evict):
        assert sum(lengths[h] for h in needed_there) > quota
