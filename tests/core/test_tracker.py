"""Who hears of whom."""

from __future__ import annotations

from p2pdist.core.places import Whereabouts
from p2pdist.core.tracker import Tracker
from p2pdist.ids import GroupPath, InfoHash, NodeId, node_id_of
from p2pdist.wire.frames import Announce, Presence, Role, Sources

HASH = InfoHash("a" * 64)
OTHER = InfoHash("b" * 64)
POINT, ONE, TWO = (node_id_of(bytes([n]) * 32) for n in (1, 2, 3))


def announce(
    tracker: Tracker,
    node: NodeId,
    role: Role = "device",
    hashes: tuple[InfoHash, ...] = (HASH,),
    *,
    no_room: bool = False,
    dialled: bool = False,
    complete: bool = False,
) -> None:
    presences = [Presence(info_hash=h, have=0, pieces=10, complete=complete, no_room=no_room) for h in hashes]
    tracker.announce(
        node,
        role=role,
        where=Whereabouts(site="site", gateway=None, host="192.0.2.1", port=7881),
        group=GroupPath("/"),
        announce=Announce(role=role, port=7881, artifacts=presences),
        dialled=dialled,
    )


def told(tracker: Tracker) -> dict[NodeId, list[str]]:
    return {node: [c.node for c in sources.candidates] for node, sources in tracker.poll()}


def test_a_newcomer_hears_of_those_who_are_there_and_they_of_it() -> None:
    tracker = Tracker()
    announce(tracker, POINT, "point")
    tracker.poll()
    announce(tracker, ONE)
    assert told(tracker) == {POINT: [ONE], ONE: [POINT]}


def test_in_a_large_swarm_a_newcomer_disturbs_nobody() -> None:
    tracker = Tracker()
    for number in range(100):
        announce(tracker, node_id_of((1000 + number).to_bytes(32, "big")))
    tracker.poll()
    announce(tracker, ONE)
    assert list(told(tracker)) == [ONE]


def test_an_announcement_that_changes_nothing_is_not_answered_twice() -> None:
    tracker = Tracker()
    announce(tracker, ONE)
    tracker.poll()
    announce(tracker, ONE)
    assert tracker.poll() == []


def test_announcing_again_fills_in_what_was_missed() -> None:
    tracker = Tracker()
    crowd = [node_id_of((1000 + number).to_bytes(32, "big")) for number in range(100)]
    for node in crowd:
        announce(tracker, node)
    tracker.poll()
    announce(tracker, ONE)
    tracker.poll()
    announce(tracker, crowd[0])
    assert ONE in told(tracker)[crowd[0]]


def test_an_artifact_left_out_of_an_announcement_is_left() -> None:
    tracker = Tracker()
    announce(tracker, ONE, hashes=(HASH, OTHER))
    announce(tracker, ONE, hashes=(OTHER,))
    assert tracker.members(HASH) == ()
    assert [m.node for m in tracker.members(OTHER)] == [ONE]


def test_a_node_whose_link_is_gone_is_forgotten_and_told_anew_when_it_returns() -> None:
    tracker = Tracker()
    announce(tracker, POINT, "point")
    announce(tracker, ONE)
    tracker.poll()
    tracker.forget(ONE)
    assert [m.node for m in tracker.members(HASH)] == [POINT]
    announce(tracker, ONE)
    (answer,) = tracker.poll()
    assert answer[0] == ONE
    assert isinstance(answer[1], Sources)


def test_a_role_that_a_node_claims_is_not_believed() -> None:
    tracker = Tracker()
    tracker.announce(
        ONE,
        role="device",
        where=Whereabouts(site="site", gateway=None, host="192.0.2.1", port=7881),
        group=GroupPath("/"),
        announce=Announce(
            role="point", port=7881, artifacts=[Presence(info_hash=HASH, have=0, pieces=1, complete=False)]
        ),
    )
    assert [m.role for m in tracker.members(HASH)] == ["device"]


def test_everybody_hears_when_a_point_has_no_room_and_when_it_has_again() -> None:
    tracker = Tracker()
    announce(tracker, POINT, "point")
    announce(tracker, ONE)
    tracker.poll()
    announce(tracker, POINT, "point", no_room=True)
    assert [(node, s.candidates[0].taken) for node, s in tracker.poll() if node == ONE] == [(ONE, False)]
    announce(tracker, POINT, "point")
    assert [(node, s.candidates[0].taken) for node, s in tracker.poll() if node == ONE] == [(ONE, True)]


def test_those_who_have_to_dial_a_member_hear_of_it_again_for_as_long_as_it_lacks_something() -> None:
    tracker = Tracker()
    announce(tracker, ONE, "origin")
    announce(tracker, POINT, "point", dialled=True)
    tracker.poll()
    announce(tracker, POINT, "point", dialled=True)
    assert told(tracker) == {ONE: [POINT]}
    announce(tracker, POINT, "point", dialled=True, complete=True)
    assert told(tracker) == {}


def test_who_cannot_reach_somebody_whom_it_is_to_meet_is_told_so_once_more() -> None:
    tracker = Tracker()

    def says(node: NodeId, host: str, *unreached: NodeId) -> list[Sources]:
        presence = Presence(info_hash=HASH, have=0, pieces=10, complete=False, unreached=list(unreached))
        tracker.announce(
            node,
            role="device",
            where=Whereabouts(site=host, gateway=POINT, host=host, port=7881, translated=True),
            group=GroupPath("/"),
            announce=Announce(role="device", port=7881, artifacts=[presence]),
        )
        return [sources for receiver, sources in tracker.poll() if receiver == node]

    says(ONE, "203.0.113.1")
    says(TWO, "203.0.113.2")
    assert says(ONE, "203.0.113.1") == []
    for _ in range(2):
        (sources,) = says(ONE, "203.0.113.1", TWO)
        assert [(c.node, c.path) for c in sources.candidates if c.taken] == [(TWO, "punched")]
