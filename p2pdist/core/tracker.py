"""Who takes part in which artifact's swarm, and what each member should hear about the others.

A newcomer is told of those who are there already, and dials them. Those are told of it too, so that they
know its bytes by name, as long as the swarm is small; in a large one an announcement costs one decision,
and members learn of the others when they announce again.

A member that is dialled cannot call for help by itself: as long as it lacks something, each of its
announcements has those who dial it told of it once more, and so they dial again. Likewise who says that it
cannot reach somebody whom it is to meet is told so once more: the meeting may have been forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from p2pdist.core.places import Member, Whereabouts
from p2pdist.core.sources import SourceRules, decide_sources
from p2pdist.ids import GroupPath, InfoHash, NodeId
from p2pdist.wire.frames import Announce, Presence, Role, Sources

HopelessFor = Callable[[InfoHash, NodeId, NodeId], str | None]

_INTRODUCED_MAX = 64  # members of a swarm in which each is told of every newcomer


class Tracker:
    """The members of every swarm that one node tracks. Pure bookkeeping; bounded by its callers' links.

    Args:
        rules: The numbers in the rules.
        hopeless: Says of an artifact and two devices in different places why they cannot meet.
    """

    def __init__(self, rules: SourceRules | None = None, *, hopeless: HopelessFor | None = None) -> None:
        self._rules = rules or SourceRules()
        self._hopeless = hopeless or (lambda info_hash, one, other: None)
        self._swarms: dict[InfoHash, dict[NodeId, Member]] = {}
        self._told: dict[NodeId, dict[InfoHash, Sources]] = {}
        self._due: dict[tuple[NodeId, InfoHash], None] = {}

    def announce(
        self,
        node: NodeId,
        *,
        role: Role,
        where: Whereabouts,
        group: GroupPath,
        announce: Announce,
        dialled: bool = False,
    ) -> None:
        """Take in the whole list of artifacts that *node* takes part in.

        Args:
            node: Who announces, as its certificate says.
            role: What it is, as grants say; the announcement's own claim is not used.
            where: Where others reach it, and what it shares a LAN with.
            group: Its administration group.
            announce: The announcement.
            dialled: Whether it dials nobody, so that others have to dial it.
        """
        listed = {InfoHash(presence.info_hash): presence for presence in announce.artifacts}
        for info_hash in [h for h, members in self._swarms.items() if node in members]:
            if info_hash not in listed:
                self._leave(node, info_hash)
        for info_hash, presence in listed.items():
            members = self._swarms.setdefault(info_hash, {})
            known = members.get(node)
            members[node] = _member(node, role, where, group, presence, dialled)
            if known is None or _matters(known, members[node]):
                self._introduce(info_hash, members[node])
            self._due[node, info_hash] = None
            if dialled and not presence.complete:
                self._call(node, info_hash)

    def forget(self, node: NodeId) -> None:
        """Drop *node* from every swarm: its link is gone."""
        for info_hash in [h for h, members in self._swarms.items() if node in members]:
            self._leave(node, info_hash)
        self._told.pop(node, None)

    def again(self, node: NodeId, info_hash: InfoHash) -> None:
        """Decide once more for one member: what is known beside the announcements has changed."""
        self._due[node, info_hash] = None

    def poll(self) -> list[tuple[NodeId, Sources]]:
        """Return what is to be sent to whom: a decision for each announcement, where it has changed."""
        due, self._due = self._due, {}
        changed = []
        for node, info_hash in due:
            receiver = self._swarms.get(info_hash, {}).get(node)
            if receiver is None:
                continue
            members = list(self._swarms[info_hash].values())
            hopeless = partial(self._hopeless, info_hash)
            candidates = decide_sources(receiver, members, rules=self._rules, hopeless=hopeless)
            sources = Sources(info_hash=info_hash, candidates=list(candidates))
            told = self._told.setdefault(node, {})
            if told.get(info_hash) != sources or _waits(receiver, sources):
                told[info_hash] = sources
                changed.append((node, sources))
        return changed

    def members(self, info_hash: InfoHash) -> tuple[Member, ...]:
        """Return everybody in one swarm."""
        return tuple(self._swarms.get(info_hash, {}).values())

    def _introduce(self, info_hash: InfoHash, member: Member) -> None:
        """Decide again for the others for whom it matters, unless they are too many."""
        members = self._swarms[info_hash]
        others = [other for other in members.values() if other.node != member.node]
        if len(members) > _INTRODUCED_MAX:
            others = [o for o in others if member.gateway is not None and o.site == member.site]
        self._due |= dict.fromkeys((other.node, info_hash) for other in others[:_INTRODUCED_MAX])

    def _call(self, node: NodeId, info_hash: InfoHash) -> None:
        """Tell those who may dial *node* of it, also if they know."""
        members = self._swarms[info_hash]
        for other, member in members.items():
            near = len(members) <= _INTRODUCED_MAX and not member.dialled
            if other != node and (member.role == "origin" or near):
                self._told.get(other, {}).pop(info_hash, None)
                self._due[other, info_hash] = None

    def _leave(self, node: NodeId, info_hash: InfoHash) -> None:
        members = self._swarms[info_hash]
        gone = members.pop(node)
        if gone.gateway is not None:
            self._introduce(info_hash, gone)
        if not members:
            del self._swarms[info_hash]
        self._told.get(node, {}).pop(info_hash, None)
        self._due.pop((node, info_hash), None)


def _waits(receiver: Member, sources: Sources) -> bool:
    """Whether a member cannot reach somebody whom it is to meet."""
    return bool(receiver.unreached) and any(
        c.taken and c.path == "punched" and c.node in receiver.unreached for c in sources.candidates
    )


def _matters(before: Member, now: Member) -> bool:
    """Whether others should hear of a change: of place, of who fetches for it, of who has it all there."""
    if (before.no_room, before.mirrored) != (now.no_room, now.mirrored) or before.site != now.site:
        return True
    return now.gateway is not None and (
        before.complete != now.complete or before.unreached != now.unreached or before.own != now.own
    )


def _member(
    node: NodeId, role: Role, where: Whereabouts, group: GroupPath, presence: Presence, dialled: bool
) -> Member:
    return Member(
        node=node,
        role=role,
        host=where.host,
        port=where.port,
        site=where.site,
        group=group,
        complete=presence.complete,
        have=presence.have / presence.pieces if presence.pieces else 0.0,
        no_room=presence.no_room,
        mirrored=role == "origin" and presence.mirrored,
        dialled=dialled,
        gateway=where.gateway,
        translated=where.translated,
        own=where.own,
        unreached=frozenset(NodeId(other) for other in presence.unreached),
    )
