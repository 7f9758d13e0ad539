"""What vendors offer becomes proposals: each version once, whoever found it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.store import proposals, tasks
from p2pdist.store.fleetstore import FleetStore
from p2pdist.wire.following import AptSource, Follow, Offer
from p2pdist.wire.tasks import TaskOffers
from p2pdist.wire.work import decode_work, encode_work
from tests.store.conftest import NOW, node_of

pytestmark = pytest.mark.slow  # a database for each

SOURCE = AptSource(
    url="https://vendor.example/debian",
    suite="stable",
    components=["main"],
    architectures=["amd64"],
    packages=["*"],
)
NODE = node_of(1)


def followed(store: FleetStore, task: str = "t") -> None:
    """A task that follows the vendor on two nodes, with a run under way."""
    fields: dict[str, Any] = {
        "nodes": [NODE, node_of(2)],
        "by": "alice",
        "now": NOW,
        "window_s": 60,
        "spread_s": 0,
    }
    store.write_now(
        tasks.add_task, task_id=task, work=encode_work(Follow(source=SOURCE, keys=[b"k"])), **fields
    )
    store.write_now(tasks.begin_run, task, now=NOW, refused={})


def offer(version: str, product: str = "tool", **fields: Any) -> Offer:
    usual = {
        "product": product,
        "version": version,
        "architecture": "amd64",
        "url": f"https://vendor.example/debian/pool/{product}_{version}.deb",
        "file": f"{product}_{version}.deb",
        "size_bytes": 7,
        "sha256": hashlib.sha256(f"{product} {version}".encode()).hexdigest(),
        "signed": True,
    }
    return Offer(**{**usual, **fields})


def say(
    store: FleetStore, *offers: Offer, task: str = "t", date: int = 0, now: int = NOW, node: Any = NODE
) -> None:
    said = TaskOffers(id="i", task=task, run=1, date=date, offers=list(offers))
    store.write_now(proposals.record_offers, node, said, now)


def states(store: FleetStore) -> dict[str, str]:
    return {f"{each.product} {each.version}": each.state for each in store.read_now(proposals.list_proposals)}


def seen(store: FleetStore, task: str = "t") -> int:
    work = decode_work(store.read_now(tasks.find_task, task).work)
    assert isinstance(work, Follow)
    return work.seen


def test_a_version_is_proposed_once_however_often_it_is_found(store: FleetStore) -> None:
    followed(store)
    say(store, offer("1"))
    say(store, offer("1"), now=NOW + 100)
    say(store, offer("1"), now=NOW + 200, node=node_of(2))
    (record,) = store.read_now(proposals.list_proposals)
    assert (record.state, record.first, record.last, record.task) == ("new", NOW, NOW + 200, "t")
    assert (record.url, record.file, record.size_bytes, record.signed) == (
        "https://vendor.example/debian/pool/tool_1.deb",
        "tool_1.deb",
        7,
        True,
    )


def test_a_newer_version_supersedes_and_one_that_vanishes_is_gone_until_it_comes_back(
    store: FleetStore,
) -> None:
    followed(store)
    say(store, offer("1.9"), offer("3", "other"))
    say(store, offer("1.10"))
    assert states(store) == {"tool 1.9": "superseded", "tool 1.10": "new", "other 3": "gone"}
    say(store, offer("1.9"))
    assert states(store) == {"tool 1.9": "new", "tool 1.10": "gone", "other 3": "gone"}
    say(store)
    assert set(states(store).values()) == {"gone"}


def test_what_was_dropped_is_not_proposed_again_while_it_is_on_offer(store: FleetStore) -> None:
    followed(store)
    say(store, offer("1"))
    (record,) = store.read_now(proposals.list_proposals)
    assert store.write_now(proposals.drop_proposal, record.id[:4]).state == "dropped"
    say(store, offer("1"), now=NOW + limits.PROPOSAL_LIFE_S)
    say(store, offer("1"), offer("1", "other"), now=NOW + limits.PROPOSAL_LIFE_S + 1)
    assert states(store) == {"tool 1": "dropped", "other 1": "new"}


def test_another_file_under_the_same_version_is_another_proposal(store: FleetStore) -> None:
    followed(store)
    say(store, offer("1"))
    say(store, offer("1", sha256="ab" * 32))
    found = store.read_now(proposals.list_proposals)
    assert {each.sha256 == "ab" * 32: each.state for each in found} == {False: "gone", True: "new"}


def test_what_two_tasks_find_stays_while_one_of_them_finds_it(store: FleetStore) -> None:
    followed(store)
    followed(store, "u")
    say(store, offer("1"))
    say(store, offer("1"), task="u")
    assert states(store) == {"tool 1": "new"}
    say(store, task="t")
    assert states(store) == {"tool 1": "gone"}
    say(store, offer("1"), task="u")
    assert states(store) == {"tool 1": "new"}


def test_the_next_run_takes_nothing_older_than_the_newest_index(store: FleetStore) -> None:
    followed(store)
    say(store, offer("2"), date=NOW - 100)
    assert seen(store) == NOW - 100
    say(store, offer("1"), date=NOW - 200, node=node_of(2))
    assert (states(store), seen(store)) == ({"tool 2": "new"}, NOW - 100)
    say(store, offer("3"), date=NOW + limits.FOLLOW_AHEAD_S_MAX + 1)
    assert seen(store) == NOW - 100, "a node whose clock is wrong does not end the task"


def test_offers_of_a_run_that_nobody_was_given_are_not_taken(store: FleetStore) -> None:
    followed(store)
    say(store, offer("1"), node=node_of(3))
    say(store, offer("1"), task="another")
    assert states(store) == {}


def test_what_is_not_on_offer_any_more_is_forgotten_after_a_while(store: FleetStore) -> None:
    followed(store)
    say(store, offer("1"))
    say(store)
    say(store, offer("1", "other"), now=NOW + limits.PROPOSAL_LIFE_S + 1)
    assert states(store) == {"other 1": "new"}


def test_there_is_an_end_to_proposals(store: FleetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROPOSALS_MAX", 4)
    monkeypatch.setattr(limits, "FOLLOW_OFFERS_MAX", 3)
    followed(store)
    for version in range(10):
        say(store, *(offer(str(version), name) for name in ("a", "b", "c")), now=NOW + version)
    assert [state for state in states(store).values() if state == "new"] == ["new"] * 3
    assert len(states(store)) <= 4


def test_a_proposal_is_found_by_the_beginning_of_its_id(store: FleetStore) -> None:
    followed(store)
    say(store, offer("1"))
    (record,) = store.read_now(proposals.list_proposals, state="new")
    assert store.read_now(proposals.find_proposal, record.id[:5]) == record
    for text in ("", "zz", "%", "\0"):
        with pytest.raises(UsageError, match="no proposal"):
            store.read_now(proposals.find_proposal, text)
    assert store.read_now(proposals.list_proposals, state="gone") == []
    assert store.read_now(proposals.list_proposals, after=record.id) == []
