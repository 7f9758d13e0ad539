"""What a path is, when to try for a better one, and why there is none."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.paths import CandidateKind, may_ask, obstacle, path_kind, pause_s
from p2pdist.wire.nat import DEPENDENCES, Dependence, NatBehaviour
from p2pdist.wire.stun import Endpoint

EIM, ADM, APDM = DEPENDENCES
GATEWAY, GATEWAY6 = Endpoint("192.0.2.1", 3478), Endpoint("2001:db8::1", 3478)


def nat(
    mapping: Dependence, filtering: Dependence, *, gateway: Endpoint = GATEWAY, udp: bool = True
) -> NatBehaviour:
    return NatBehaviour(
        gateway=gateway,
        local=Endpoint("10.0.0.2", 5000),
        mapped=Endpoint("198.51.100.7", 6000) if udp else None,
        mapping=(mapping,),
        filtering=(filtering,),
    )


def open_to_all(gateway: Endpoint = GATEWAY) -> NatBehaviour:
    own = Endpoint("198.51.100.9", 5000)
    return NatBehaviour(gateway=gateway, local=own, mapped=own, mapping=(EIM,), filtering=(EIM,))


KINDS: tuple[CandidateKind, ...] = ("host", "srflx", "prflx")


@pytest.mark.parametrize(("local", "remote"), list(itertools.product(KINDS, KINDS)))
def test_a_path_is_direct_when_both_sides_are_seen_at_their_own_addresses(
    local: CandidateKind, remote: CandidateKind
) -> None:
    assert (path_kind(local, remote) == "direct") == (local == remote == "host")


@given(failures=st.integers(0, 10_000), jitter=st.floats(0, 1))
def test_pauses_are_never_none_and_never_endless(failures: int, jitter: float) -> None:
    assert 0 < pause_s(failures, jitter) <= 1.25 * limits.PUNCH_AGAIN_S_MAX


def test_after_a_path_that_stood_another_attempt_follows_soon_and_after_failures_ever_later() -> None:
    pauses = [pause_s(failures, 0.5) for failures in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1


def test_two_nats_that_use_another_port_for_each_peer_are_in_the_way() -> None:
    reason = obstacle([nat(APDM, APDM)], [nat(APDM, APDM)])
    assert reason is not None
    assert "both NATs use another port for each peer" in reason


@pytest.mark.parametrize("turned", [False, True], ids=["operator", "device"])
def test_one_such_nat_is_in_the_way_of_a_filter_by_port_only(turned: bool) -> None:
    symmetric = [nat(APDM, APDM)]
    for filtering, blocked in ((APDM, True), (ADM, False), (EIM, False)):
        sides = (symmetric, [nat(EIM, filtering)])
        reason = obstacle(*(reversed(sides) if turned else sides))
        assert (reason is not None) == blocked, reason
        if reason is not None:
            assert ("the device's NAT uses another" in reason) == turned


def test_udp_that_does_not_get_through_is_named_with_its_side() -> None:
    dead = [nat(EIM, EIM, udp=False)]
    assert "operator's side" in (obstacle(dead, [open_to_all()]) or "")
    assert "device's side" in (obstacle([open_to_all()], dead) or "")


def test_an_answer_of_one_gateway_counts_more_than_the_silence_of_another() -> None:
    assert obstacle([nat(EIM, EIM, udp=False), open_to_all()], [open_to_all()]) is None


def test_the_outermost_nat_counts() -> None:
    inside = [open_to_all(), nat(APDM, APDM)]
    assert "both NATs" in (obstacle(inside, [nat(APDM, APDM)]) or "")


def test_one_family_of_addresses_that_may_work_is_enough() -> None:
    here = [nat(APDM, APDM), open_to_all(GATEWAY6)]
    assert obstacle(here, [nat(APDM, APDM), open_to_all(GATEWAY6)]) is None
    assert "IPv4: both NATs" in (obstacle(here, [nat(APDM, APDM)]) or "")
    assert "no family" in (obstacle([open_to_all(GATEWAY6)], [open_to_all()]) or "")


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert obstacle([], []) is None
    assert obstacle([open_to_all()], []) is None


@given(st.lists(st.sampled_from(DEPENDENCES), min_size=4, max_size=4))
def test_what_is_in_the_way_does_not_depend_on_who_asks(kinds: list[Dependence]) -> None:
    one, other = [nat(kinds[0], kinds[1])], [nat(kinds[2], kinds[3])]
    assert (obstacle(one, other) is None) == (obstacle(other, one) is None)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:224.0.0.1"]
)
def test_nobody_and_everybody_are_not_asked(host: str) -> None:
    assert not may_ask(Endpoint(host, 3478), loopback=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_asked_only_where_it_offers_itself(host: str) -> None:
    assert not may_ask(Endpoint(host, 3478), loopback=False)
    assert may_ask(Endpoint(host, 3478), loopback=True)


def test_a_gateway_is_asked_at_a_port() -> None:
    assert may_ask(GATEWAY, loopback=False)
    assert not may_ask(Endpoint(GATEWAY.host, 0), loopback=False)
