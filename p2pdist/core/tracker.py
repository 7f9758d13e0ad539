"""Who takes part in which artifact's swarm, and what each member should hear about the others.

A newcomer is told of those who are there already, and dials them. Those are told of it too, so that they
know its bytes by name, as long as the swarm is small; in a large one an announcement costs one decision,
and members learn of the others when they announce again.

A member that is dialled cannot call for help by itself: as long as it lacks something, each of its
announcements has those who dial it told of it once more, and so they dial again.
"""

from __future__ import annotations

from p2pdist.core.sources import Member, SourceRules, decide_sources
from p2pdist.ids import GroupPath, InfoHash, NodeId
from p2pdist.wire.frames import Announce, Presence, Role, Sources

_INTRODUCED_MAX = 64  # members of a swarm in which each is told of every newcomer


class Tracker:
    """The members of every swarm that one node tracks. Pure bookkeeping; bounded by its callers' links."""

    def __init__(self, rules: SourceRules | None = None) -> None:
        self._rules = rules or SourceRules()
        self._swarms: dict[InfoHash, dict[NodeId, Member]] = {}
        self._told: dict[NodeId, dict[InfoHash, Sources]] = {}
        self._due: dict[tuple[NodeId, InfoHash], None] = {}

    def announce(
        self,
        node: NodeId,
        *,
        role: Role,
        host: str,
        site: str,
        group: GroupPath,
        announce: Announce,
        dialled: bool = False,
    ) -> None:
        """Take in the whole list of artifacts that *node* takes part in.

        Args:
            node: Who announces, as its certificate says.
            role: What it is, as grants say; the announcement's own claim is not used.
            host: The address at which others reach it.
            site: What it shares a LAN with; see :class:`~p2pdist.core.sources.Member`.
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
            news = known is None or known.no_room != presence.no_room
            if news and len(members) <= _INTRODUCED_MAX:
                self._due |= dict.fromkeys((other, info_hash) for other in members if other != node)
            members[node] = _member(node, role, host, announce.port, site, group, presence, dialled)
            self._due[node, info_hash] = None
            if dialled and not presence.complete:
                self._call(node, info_hash)

    def forget(self, node: NodeId) -> None:
        """Drop *node* from every swarm: its link is gone."""
        for info_hash in [h for h, members in self._swarms.items() if node in members]:
            self._leave(node, info_hash)
        self._told.pop(node, None)

    def poll(self) -> list[tuple[NodeId, Sources]]:
        """Return what is to be sent to whom: a decision for each announcement, where it has changed."""
        due, self._due = self._due, {}
        changed = []
        for node, info_hash in due:
            receiver = self._swarms.get(info_hash, {}).get(node)
            if receiver is None:
                continue
            members = list(self._swarms[info_hash].values())
            candidates = decide_sources(receiver, members, rules=self._rules)
            sources = Sources(info_hash=info_hash, candidates=list(candidates))
            told = self._told.setdefault(node, {})
            if told.get(info_hash) != sources:
                told[info_hash] = sources
                changed.append((node, sources))
        return changed

    def members(self, info_hash: InfoHash) -> tuple[Member, ...]:
        """Return everybody in one swarm."""
        return tuple(self._swarms.get(info_hash, {}).values())

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
        del members[node]
        if not members:
            del self._swarms[info_hash]
        self._told.get(node, {}).pop(info_hash, None)
        self._due.pop((node, info_hash), None)


def _member(
    node: NodeId,
    role: Role,
    host: str,
    port: int,
    site: str,
    group: GroupPath,
    presence: Presence,
    dialled: bool,
) -> Member:
    return Member(
        node=node,
        role=role,
        host=host,
        port=port,
        site=site,
        group=group,
        complete=presence.complete,
        have=presence.have / presence.pieces if presence.pieces else 0.0,
        no_room=presence.no_room,
        dialled=dialled,
    )
