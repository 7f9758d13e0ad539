"""Peer ids, and whose account a block goes to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.ids import NodeId
from p2pdist.swarm.ledger import Ledger, NodeBook, peer_id_of, role_of
from p2pdist.wire.frames import Role

KIB = 1024
ANN = NodeId("a" * 32)
BOB = NodeId("b" * 32)
A = peer_id_of("point", ANN)
B = peer_id_of("device", BOB)


def ledger(length: int = 128 * KIB) -> Ledger:
    return Ledger(length=length, piece_bytes=64 * KIB, block_bytes=16 * KIB)


def received(accounts: Ledger) -> dict[str, int]:
    book = NodeBook()
    book.learn(ANN)
    book.learn(BOB)
    sources, unattributed = accounts.accounts(book)
    found = {source.node[0]: source.received for source in sources if source.received}
    return {**found, "?": unattributed} if unattributed else found


def fetch(accounts: Ledger, peer: bytes, piece: int, *blocks: int) -> None:
    for block in blocks:
        accounts.block_requested(peer, piece, block)


@given(
    st.sampled_from(["origin", "point", "device"]), st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=32)
)
def test_a_peer_id_leads_back_to_role_and_node(role: Role, text: str) -> None:
    node = NodeId(text[:32])
    peer = peer_id_of(role, node)
    book = NodeBook()
    assert len(peer) == 20
    assert role_of(peer) == role
    assert book.find(peer) is None
    book.learn(node)
    assert book.find(peer) == node


@given(st.binary(min_size=20, max_size=20))
def test_a_strange_peer_id_belongs_to_nobody(peer: bytes) -> None:
    book = NodeBook()
    book.learn(ANN)
    assert book.find(peer) is None or peer[5:] == ANN[:15].encode()


def test_bytes_count_once_their_piece_is_verified_and_not_before() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1, 2, 3)
    assert received(accounts) == {}
    accounts.piece_verified(0)
    assert received(accounts) == {"a": 64 * KIB}


def test_the_last_block_counts_with_its_own_length() -> None:
    accounts = ledger(length=64 * KIB + 5)
    fetch(accounts, B, 1, 0)
    accounts.piece_verified(1)
    assert received(accounts) == {"b": 5}


def test_a_block_asked_of_two_is_credited_to_the_one_that_libtorrent_names() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1, 2, 3)
    fetch(accounts, B, 0, 3)
    accounts.block_received(A, 0, 3)
    accounts.piece_verified(0)
    assert received(accounts) == {"a": 64 * KIB}


def test_a_block_asked_of_two_is_nobodys_until_libtorrent_names_one_after_the_piece() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1, 2, 3)
    fetch(accounts, B, 0, 3)
    accounts.piece_verified(0)
    assert received(accounts) == {"a": 48 * KIB, "?": 16 * KIB}
    accounts.block_received(B, 0, 3)
    accounts.block_received(A, 0, 2)
    assert received(accounts) == {"a": 48 * KIB, "b": 16 * KIB}


def test_a_block_asked_of_two_is_the_other_ones_when_one_refuses_it_after_the_piece() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1, 2, 3)
    accounts.block_requested(B, 0, 3)
    accounts.piece_verified(0)
    accounts.request_dropped(B, 0, 3)
    assert received(accounts) == {"a": 64 * KIB}


def test_blocks_asked_of_two_are_in_the_end_put_to_the_accounts_of_those_from_which_more_has_come() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1, 2, 3)
    fetch(accounts, B, 0, 1, 2, 3)
    accounts.piece_verified(0)
    assert received(accounts) == {"a": 16 * KIB, "?": 48 * KIB}
    accounts.settle({A: 32 * KIB, B: 16 * KIB})
    assert received(accounts) == {"a": 32 * KIB, "b": 16 * KIB, "?": 16 * KIB}
    accounts.settle({A: 32 * KIB, B: 32 * KIB})
    assert received(accounts) == {"a": 32 * KIB, "b": 32 * KIB}
    assert not accounts.in_doubt


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "ab", "ba"]), st.sampled_from(["a", "b", "ab"])), max_size=8
    )
)
def test_nobody_has_more_in_its_account_than_it_has_sent(blocks: list[tuple[str, str]]) -> None:
    accounts = ledger()
    peers, sent = {"a": A, "b": B}, dict.fromkeys((A, B), 0)
    for number, (asked, answered) in enumerate(blocks):
        for name in asked:
            accounts.block_requested(peers[name], *divmod(number, 4))
        for name in set(asked) & set(answered) or {asked[0]}:
            sent[peers[name]] += 16 * KIB
    for piece in range(2):
        accounts.piece_verified(piece)
    accounts.settle(sent)
    found = received(accounts)
    assert sum(found.values()) == 16 * KIB * len(blocks)
    assert found.get("a", 0) <= sent[A]
    assert found.get("b", 0) <= sent[B]


def test_blocks_in_doubt_stay_so_where_what_came_was_partly_refused() -> None:
    accounts = ledger()
    fetch(accounts, A, 1, 0)
    accounts.piece_failed(1)
    fetch(accounts, A, 0, 0)
    fetch(accounts, B, 0, 0)
    accounts.piece_verified(0)
    accounts.settle({A: 64 * KIB, B: 64 * KIB})
    assert received(accounts) == {"?": 16 * KIB}


def test_a_block_asked_for_again_after_its_sender_left_or_refused_is_the_second_ones() -> None:
    for leave in (True, False):
        accounts = ledger()
        fetch(accounts, A, 0, 0, 1, 2, 3)
        if leave:
            accounts.peer_gone(A)
            fetch(accounts, B, 0, 3)
        else:
            fetch(accounts, B, 0, 3)
            accounts.request_dropped(A, 0, 3)
        accounts.piece_verified(0)
        assert received(accounts) == {"a": 48 * KIB, "b": 16 * KIB}


def test_a_refused_piece_names_its_only_sender_and_counts_when_it_comes_whole() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1, 2, 3)
    assert accounts.piece_failed(0) == {A}
    assert accounts.refused_bytes == 64 * KIB
    fetch(accounts, B, 0, 0, 1, 2, 3)
    assert accounts.piece_verified(0) == frozenset()
    assert received(accounts) == {"b": 64 * KIB}


def test_a_refused_piece_of_two_senders_is_explained_by_a_ban() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1)
    fetch(accounts, B, 0, 2, 3)
    assert accounts.piece_failed(0) == {A, B}
    assert accounts.peer_banned(B) == [(0, frozenset({A, B}))]
    assert accounts.peer_banned(B) == []
    fetch(accounts, A, 0, 2, 3)
    assert accounts.piece_verified(0) == frozenset()
    assert received(accounts) == {"a": 64 * KIB}


def test_who_is_banned_beside_one_that_has_sent_wrong_blocks_before_is_not_accused() -> None:
    accounts = ledger()
    fetch(accounts, B, 1, 0, 1, 2, 3)
    assert accounts.piece_failed(1) == {B}
    fetch(accounts, A, 0, 0, 1)
    fetch(accounts, B, 0, 2, 3)
    assert accounts.piece_failed(0) == {A, B}
    assert accounts.peer_banned(A) == []
    assert accounts.is_wronged(A)
    assert not accounts.is_wronged(B)
    assert accounts.peer_banned(B) == [(0, frozenset({A, B}))]
    assert not accounts.is_wronged(A)


def test_who_has_sent_wrong_blocks_alone_is_accused_whoever_else_has() -> None:
    accounts = ledger(192 * KIB)
    for piece, peer in enumerate((A, B)):
        fetch(accounts, peer, piece, 0, 1, 2, 3)
        assert accounts.piece_failed(piece) == {peer}
    fetch(accounts, A, 2, 0, 1)
    fetch(accounts, B, 2, 2, 3)
    accounts.piece_failed(2)
    assert accounts.peer_banned(A) == [(2, frozenset({A, B}))]


def test_a_refusal_that_nothing_explains_is_handed_over_with_the_whole_piece() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1)
    fetch(accounts, B, 0, 2, 3)
    accounts.piece_failed(0)
    assert accounts.piece_verified(0) == {A, B}


def test_what_was_sent_is_counted_by_receiver() -> None:
    accounts = ledger()
    accounts.block_sent(B, 0, 0)
    accounts.block_sent(B, 1, 0)
    book = NodeBook()
    book.learn(BOB)
    ((source,), unattributed) = accounts.accounts(book)
    assert (source.node, source.role, source.sent, unattributed) == (BOB, "device", 32 * KIB, 0)


@pytest.mark.parametrize("known", [True, False])
def test_bytes_of_a_node_that_is_not_known_are_in_no_account(known: bool) -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1, 2, 3)
    accounts.piece_verified(0)
    book = NodeBook()
    if known:
        book.learn(ANN)
    sources, unattributed = accounts.accounts(book)
    assert (len(sources), unattributed) == ((1, 0) if known else (0, 64 * KIB))


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["request", "received", "dropped", "gone", "failed", "banned"]),
        st.sampled_from([A, B]),
        st.integers(0, 3),
    ),
    max_size=40,
)


@given(_STEPS)
def test_whatever_happens_a_verified_piece_counts_exactly_once(steps: list[tuple[str, bytes, int]]) -> None:
    accounts = ledger()
    for step, peer, block in steps:
        match step:
            case "request":
                accounts.block_requested(peer, 0, block)
            case "received":
                accounts.block_requested(peer, 0, block)
                accounts.block_received(peer, 0, block)
            case "dropped":
                accounts.request_dropped(peer, 0, block)
            case "gone":
                accounts.peer_gone(peer)
            case "failed":
                accounts.piece_failed(0)
            case "banned":
                accounts.peer_banned(peer)
    for block in range(4):
        accounts.block_requested(A, 0, block)
    accounts.piece_verified(0)
    assert sum(received(accounts).values()) == 64 * KIB
    for block in range(4):
        accounts.block_received(B, 0, block)
    assert sum(received(accounts).values()) == 64 * KIB
    assert "?" not in received(accounts)


def test_nobody_is_accused_alone_of_a_piece_that_another_was_asked_for_too_and_left() -> None:
    accounts = ledger()
    accounts.block_requested(A, 0, 0)
    accounts.block_requested(B, 0, 1)
    accounts.peer_gone(A)
    accounts.block_requested(B, 0, 0)
    assert accounts.piece_failed(0) == {A, B}
    accounts.block_requested(B, 0, 0)
    assert accounts.piece_failed(0) == {A, B}
    accounts.piece_verified(0)
    accounts.block_requested(B, 0, 0)
    assert accounts.piece_failed(0) == {B}


MIRROR = NodeId("m" * 32)
NOBODY = bytes(20)


def test_a_piece_that_was_fed_is_in_the_mirrors_account_once_it_is_verified() -> None:
    accounts = ledger()
    accounts.piece_fed(0, [(MIRROR, 0)])
    assert received(accounts) == {}
    accounts.block_received(NOBODY, 0, 1)
    accounts.piece_verified(0)
    assert received(accounts) == {"m": 64 * KIB}


def test_of_a_piece_that_was_fed_the_blocks_that_were_there_stay_their_senders() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0)
    accounts.block_received(A, 0, 0)
    accounts.piece_fed(0, [(MIRROR, 0)])
    accounts.piece_verified(0)
    assert received(accounts) == {"a": 16 * KIB, "m": 48 * KIB}


def test_a_block_that_a_peer_was_asked_for_when_its_piece_was_fed_waits_for_libtorrents_word() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1)
    accounts.piece_fed(0, [(MIRROR, 0)])
    accounts.piece_verified(0)
    assert received(accounts) == {"m": 32 * KIB, "?": 32 * KIB}
    accounts.block_received(A, 0, 0)
    accounts.block_received(NOBODY, 0, 1)
    assert received(accounts) == {"a": 16 * KIB, "m": 48 * KIB}


def test_without_that_word_what_no_peer_has_sent_came_from_the_mirror() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0, 1)
    accounts.piece_fed(0, [(MIRROR, 0)])
    accounts.piece_verified(0)
    accounts.settle({A: 16 * KIB})
    assert received(accounts) == {"a": 16 * KIB, "m": 48 * KIB}


def test_a_mirror_is_not_accused_of_a_peers_wrong_blocks() -> None:
    accounts = ledger()
    fetch(accounts, A, 0, 0)
    accounts.block_received(A, 0, 0)
    accounts.piece_fed(0, [(MIRROR, 0)])
    assert accounts.piece_failed(0) == {A}
    accounts.piece_fed(0, [(MIRROR, 0)])
    accounts.piece_verified(0)
    assert received(accounts) == {"m": 64 * KIB}
