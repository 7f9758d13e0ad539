"""The receipts that two neighbours give each other for envelopes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.receipts import Dispatch, Receipts
from p2pdist.errors import PeerError
from p2pdist.wire.frames import Taken


def test_a_receipt_is_for_all_envelopes_up_to_the_first_that_is_open() -> None:
    receipts = Receipts()
    numbers = [receipts.arrived() for _ in range(4)]
    assert receipts.due() is None
    receipts.settle(numbers[1])
    assert receipts.due() is None
    receipts.settle(numbers[0])
    receipts.settle(numbers[3])
    assert receipts.due() == Taken(count=2)


def test_a_receipt_that_could_not_be_sent_is_due_again_with_what_came_since() -> None:
    receipts = Receipts()
    numbers = [receipts.arrived() for _ in range(3)]
    receipts.settle(numbers[0], refused=True)
    assert receipts.due() == Taken(count=1, refused=[1])
    receipts.settle(numbers[1])
    receipt = receipts.due()
    assert receipt == Taken(count=2, refused=[1])
    receipts.told(receipt)
    assert receipts.due() is None
    receipts.settle(numbers[2], refused=True)
    assert receipts.due() == Taken(count=3, refused=[3])


def test_a_sender_that_does_not_wait_for_receipts_is_at_fault() -> None:
    receipts = Receipts()
    for _ in range(limits.MAILBOX_FLIGHT_ENVELOPES_MAX):
        receipts.arrived()
    with pytest.raises(PeerError, match="ahead of their receipts"):
        receipts.arrived()
    for number in range(1, 11):
        receipts.settle(number, refused=True)
    with pytest.raises(PeerError, match="ahead of their receipts"):
        receipts.arrived()
    receipts.told(receipt=Taken(count=10))
    assert receipts.arrived() == limits.MAILBOX_FLIGHT_ENVELOPES_MAX + 1


def test_no_more_is_under_way_than_the_window_allows_but_always_one() -> None:
    dispatch = Dispatch(envelopes_max=2, size_bytes_max=100)
    assert dispatch.has_room(1_000)
    dispatch.sent(1, 60)
    assert dispatch.has_room(40)
    assert not dispatch.has_room(41)
    dispatch.sent(2, 10)
    assert not dispatch.has_room(1)
    assert dispatch.taken(Taken(count=1)) == ([1], [])
    assert dispatch.has_room(90)


@pytest.mark.parametrize(
    "receipt",
    [
        Taken(count=0),
        Taken(count=2),
        Taken(count=6),
        Taken(count=2**53),
        Taken(count=4, refused=[2]),
        Taken(count=4, refused=[5]),
    ],
)
def test_a_receipt_for_what_was_not_sent_or_was_taken_before_is_refused(receipt: Taken) -> None:
    dispatch = Dispatch()
    for letter in range(5):
        dispatch.sent(letter, 1)
    dispatch.taken(Taken(count=2))
    with pytest.raises(PeerError, match="gives a receipt"):
        dispatch.taken(receipt)
    assert dispatch.under_way() == (2, 3, 4)


@given(st.lists(st.booleans(), max_size=40), st.data())
def test_in_whatever_order_envelopes_are_dealt_with_each_is_taken_or_refused_once(
    refused: list[bool], data: st.DataObject
) -> None:
    dispatch, receipts = Dispatch(envelopes_max=100), Receipts()
    for letter in range(len(refused)):
        dispatch.sent(letter, 1)
    order = data.draw(st.permutations([(receipts.arrived(), each) for each in refused]))
    theirs: list[int] = []
    ours: list[int] = []
    for number, each in order:
        receipts.settle(number, refused=each)
        receipt = receipts.due()
        if receipt is not None and data.draw(st.booleans()):
            receipts.told(receipt)
            taken, returned = dispatch.taken(receipt)
            theirs += taken
            ours += returned
    receipt = receipts.due()
    if receipt is not None:
        taken, returned = dispatch.taken(receipt)
        theirs += taken
        ours += returned
    assert theirs == [letter for letter, each in enumerate(refused) if not each]
    assert ours == [letter for letter, each in enumerate(refused) if each]
