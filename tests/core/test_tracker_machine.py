"""Whatever announces, leaves and comes back: what the tracker tells is true at that moment."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pdist.core.places import Whereabouts
from p2pdist.core.tracker import Tracker
from p2pdist.ids import GroupPath, InfoHash, NodeId, node_id_of
from p2pdist.wire.frames import Announce, Presence, Role, Sources

NODES = [node_id_of(bytes([number]) * 32) for number in range(1, 9)]
ORIGIN, *OTHERS = NODES
HASHES = [InfoHash(letter * 64) for letter in "abc"]

presences = st.lists(
    st.builds(
        Presence,
        info_hash=st.sampled_from(HASHES),
        have=st.integers(0, 10),
        pieces=st.just(10),
        complete=st.booleans(),
        no_room=st.booleans(),
    ),
    unique_by=lambda presence: presence.info_hash,
    max_size=3,
)


class Tracking(RuleBasedStateMachine):
    """A tracker beside the plainest model: what each node said last, and what it is by its grant."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = Tracker()
        self.said: dict[NodeId, dict[str, Presence]] = {}
        self.roles: dict[NodeId, Role] = {}
        self.sites: dict[NodeId, str] = {}

    @rule(artifacts=presences)
    def origin_announces(self, artifacts: list[Presence]) -> None:
        self._announce(ORIGIN, "origin", "origin", artifacts, claims="origin")

    @rule(
        node=st.sampled_from(OTHERS),
        granted=st.booleans(),
        site=st.sampled_from([*map(str, OTHERS[:2]), "direct:192.0.2.0/24"]),
        artifacts=presences,
    )
    def node_announces(self, node: NodeId, granted: bool, site: str, artifacts: list[Presence]) -> None:
        role: Role = "point" if granted else "device"
        self._announce(node, role, str(node) if granted else site, artifacts, claims="point")

    @rule(node=st.sampled_from(NODES))
    def link_ends(self, node: NodeId) -> None:
        self.tracker.forget(node)
        self.said.pop(node, None)

    @rule()
    def tells(self) -> None:
        for receiver, sources in self.tracker.poll():
            self._check(receiver, sources)
        assert self.tracker.poll() == []

    @invariant()
    def members_are_those_who_said_so_and_nobody_else(self) -> None:
        for info_hash in HASHES:
            members = {member.node for member in self.tracker.members(info_hash)}
            assert members == {node for node, said in self.said.items() if info_hash in said}

    def _announce(
        self, node: NodeId, role: Role, site: str, artifacts: list[Presence], *, claims: Role
    ) -> None:
        self.tracker.announce(
            node,
            role=role,
            where=Whereabouts(site=site, gateway=None, host="192.0.2.1", port=7881),
            group=GroupPath("/"),
            announce=Announce(role=claims, port=7881, artifacts=artifacts),
        )
        self.said[node] = {presence.info_hash: presence for presence in artifacts}
        self.roles[node], self.sites[node] = role, site

    def _check(self, receiver: NodeId, sources: Sources) -> None:
        assert sources.info_hash in self.said[receiver], "it does not take part"
        listed = [NodeId(candidate.node) for candidate in sources.candidates]
        assert receiver not in listed, "nobody is its own source"
        others = {node for node, said in self.said.items() if sources.info_hash in said} - {receiver}
        assert sorted(listed) == sorted(others)
        for candidate in sources.candidates:
            node = NodeId(candidate.node)
            assert candidate.role == self.roles[node], "without a grant nobody is a point"
            assert candidate.reason
            if candidate.taken:
                assert not self.said[node][sources.info_hash].no_room
                if "device" in (self.roles[receiver], candidate.role) and candidate.role != "origin":
                    assert self.sites[node] == self.sites[receiver], "devices do not cross the WAN"


TestTracking = Tracking.TestCase
TestTracking.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
