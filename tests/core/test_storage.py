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


def test_what_is_kept_outlives_what_merely_lies_there() -> None:
    plan = plan_storage(
        needed=[(A, 40)], keep=[B], held=[held(B, 40, used=0), held(C, 40, used=9)], quota_bytes=100
    )
    assert plan.evict == (C,)


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C, D]), st.integers(0, 50)), unique_by=lambda i: i[0]),
    st.lists(st.tuples(st.sampled_from([A, B, C, D]), st.integers(0, 50)), unique_by=lambda i: i[0]),
    st.lists(st.sampled_from([A, B, C, D]), unique=True),
    st.integers(1, 120),
)
def test_a_plan_stays_within_the_quota(
    needed: list[tuple[InfoHash, int]], there: list[tuple[InfoHash, int]], keep: list[InfoHash], quota: int
) -> None:
    plan = plan_storage(
        needed=needed, keep=keep, held=[held(h, size) for h, size in there], quota_bytes=quota
    )
    lengths = dict(there) | dict(needed)
    after = ({h for h, _ in there} - set(plan.evict)) | set(plan.fetch)
    assert sum(lengths[h] for h in after) <= quota
    assert not set(plan.fetch) & set(plan.evict)
    assert set(plan.refused) <= {h for h, _ in needed}
