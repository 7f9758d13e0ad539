"""Who sent what: from BitTorrent peer ids to nodes, and from blocks to bytes by node.

A node's peer id (BEP 20) is ``-PD1``, one letter for its role, and the first 15 characters of its node
id. That is 75 bits: enough to tell the nodes of a fleet apart. The certificate has admitted the
peer; the peer id only says which account its bytes go to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from p2pdist.ids import NodeId
from p2pdist.wire.frames import Role
from p2pdist.wire.messages import SourceBytes

_PREFIX: Final = b"-PD1"
_LETTERS: Final[dict[Role, bytes]] = {"origin": b"O", "point": b"P", "device": b"D"}
_ROLES: Final[dict[bytes, Role]] = {letter: role for role, letter in _LETTERS.items()}
_ID_CHARS: Final = 15

PeerId = bytes
"""20 bytes of a peer; of a mirror, which is none, more."""

_NOBODY: Final = bytes(20)
"""Who libtorrent says that a block came from when it was given the piece."""


def peer_id_of(role: Role, node: NodeId) -> PeerId:
    """Return the 20-byte peer id of a node."""
    return _PREFIX + _LETTERS[role] + node[:_ID_CHARS].encode()


def role_of(peer: PeerId) -> Role | None:
    """Return the role that a peer id claims; ``None`` when it is not one of ours."""
    return _ROLES.get(peer[4:5]) if peer[:4] == _PREFIX else None


class _Senders(NamedTuple):
    """The peers that a block may have come from.

    ``gone`` are those of them whose connection has ended; ``certain`` when nothing is to be added.
    """

    peers: tuple[PeerId, ...]
    gone: frozenset[PeerId] = frozenset()
    certain: bool = False


class NodeBook:
    """The nodes that this node has been told of, by the part of their id that a peer id carries."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, NodeId] = {}

    def learn(self, node: NodeId) -> None:
        """Remember a node, so that its bytes can be put to its account."""
        self._nodes[node[:_ID_CHARS].encode()] = node

    def find(self, peer: PeerId) -> NodeId | None:
        """Return the node behind a peer id, if it is known."""
        return self._nodes.get(peer[5:]) if role_of(peer) else None


class Ledger:
    """The accounts of one artifact.

    libtorrent says which peer a block is requested from, and, once the block is on the disk, which
    peer it came from; the latter comes late, and not at all for what is written after the last piece
    was verified. So a block is put to the account of the only peer that it was requested from. Where there
    were several, libtorrent's later word decides, or how much has come from each in the end
    (:meth:`settle`), and without these nobody is credited.

    Args:
        length: The artifact's length in bytes.
        piece_bytes: Its piece size.
        block_bytes: The size of a block; the last one may be shorter.
    """

    def __init__(self, *, length: int, piece_bytes: int, block_bytes: int) -> None:
        self._length = length
        self._piece_bytes = piece_bytes
        self._block_bytes = block_bytes
        self._open: dict[int, dict[int, _Senders]] = {}
        self._late: dict[tuple[int, int], tuple[PeerId, ...]] = {}
        self._asked: dict[int, set[PeerId]] = {}
        self._in_doubt: dict[int, frozenset[PeerId]] = {}
        self._convicted: set[PeerId] = set()
        self._received: dict[PeerId, int] = {}
        self._sent: dict[PeerId, int] = {}
        self._mirrors: dict[PeerId, NodeId] = {}
        self.refused_bytes = 0

    def block_requested(self, peer: PeerId, piece: int, block: int) -> None:
        """A peer has been asked for a block."""
        self._asked.setdefault(piece, set()).add(peer)
        blocks = self._open.setdefault(piece, {})
        before = blocks.get(block)
        if before is None or before.certain or before.gone.issuperset(before.peers):
            blocks[block] = _Senders((peer,))
        elif peer not in before.peers:
            blocks[block] = before._replace(peers=(*before.peers, peer))

    def piece_fed(self, piece: int, senders: Sequence[tuple[NodeId, int]]) -> None:
        """A piece whose hash is right has come from mirrors, and libtorrent is given it.

        It takes those blocks that it does not have yet. Nobody is accused for it if the piece fails.

        Args:
            piece: The piece.
            senders: The mirrors' accounts, each with the offset in the piece from which it was its bytes.
        """
        peers = [(b"mirror " + account.encode(), start) for account, start in senders]
        self._mirrors.update((peer, account) for (peer, _), (account, _) in zip(peers, senders, strict=True))
        blocks = self._open.setdefault(piece, {})
        length = min(self._piece_bytes, self._length - piece * self._piece_bytes)
        for block, offset in enumerate(range(0, length, self._block_bytes)):
            peer = next(peer for peer, start in reversed(peers) if start <= offset)
            before = blocks.get(block)
            if before is None or before.gone.issuperset(before.peers):
                blocks[block] = _Senders((peer,))
            elif not before.certain and peer not in before.peers:
                blocks[block] = before._replace(peers=(*before.peers, peer))

    def request_dropped(self, peer: PeerId, piece: int, block: int) -> None:
        """A peer has refused to send a block that it was asked for."""
        if peer in self._late.get((piece, block), ()):
            self._close(piece, block, tuple(p for p in self._late[piece, block] if p != peer))
            return
        before = self._open.get(piece, {}).get(block)
        if before and not before.certain and peer in before.peers and len(before.peers) > 1:
            remaining = tuple(other for other in before.peers if other != peer)
            self._open[piece][block] = before._replace(peers=remaining)

    def block_received(self, peer: PeerId, piece: int, block: int) -> None:
        """A block has been written, and came from this peer; or from a mirror, if the peer is all zeros."""
        if peer == _NOBODY:
            known = self._open.get(piece, {}).get(block)
            senders = known.peers if known is not None else self._late.get((piece, block), ())
            peer = next((sender for sender in senders if sender in self._mirrors), peer)
        if (piece, block) in self._late:
            self._close(piece, block, (peer,))
        elif piece in self._open:
            self._open[piece][block] = _Senders((peer,), certain=True)

    def block_sent(self, peer: PeerId, piece: int, block: int) -> None:
        """A block has been handed to the connection to a peer."""
        self._sent[peer] = self._sent.get(peer, 0) + self._block_length(piece, block)

    def piece_verified(self, piece: int) -> frozenset[PeerId]:
        """A piece matches its hash. Returns the suspects of an earlier refusal that stays unexplained."""
        self._asked.pop(piece, None)
        for block, senders in self._open.pop(piece, {}).items():
            self._close(piece, block, senders.peers)
        return self._in_doubt.pop(piece, frozenset())

    def piece_failed(self, piece: int) -> frozenset[PeerId]:
        """A piece does not match its hash. Returns who may have sent parts of it.

        That is everybody who was asked for a part since it was last good, also those who refused or left: a
        source is accused alone only where there was no other. When it may have been several, the piece stays
        in doubt until :meth:`peer_banned` or :meth:`piece_verified`.
        """
        blocks = self._open.get(piece, {})
        peers = frozenset(self._asked.get(piece, ()))
        self.refused_bytes += sum(self._block_length(piece, block) for block in blocks)
        for block, senders in blocks.items():
            blocks[block] = _Senders(senders.peers, gone=frozenset(senders.peers), certain=True)
        if len(peers) > 1:
            self._in_doubt[piece] = peers
        else:
            self._convicted |= peers
        return peers

    def peer_banned(self, peer: PeerId) -> list[tuple[int, frozenset[PeerId]]]:
        """libtorrent holds a peer for who sent wrong blocks. Returns the pieces in doubt that this explains.

        Where somebody who has sent wrong blocks before is among the suspects it is not believed: those may be
        from there, too. What libtorrent reads back to find out may have been written over meanwhile.
        """
        explained = [
            (piece, suspects)
            for piece, suspects in self._in_doubt.items()
            if peer in suspects and (peer in self._convicted or suspects.isdisjoint(self._convicted))
        ]
        for piece, _ in explained:
            del self._in_doubt[piece]
        if explained:
            self._convicted.add(peer)
        return explained

    def is_wronged(self, peer: PeerId) -> bool:
        """Whether a peer that libtorrent has banned is one that nothing is known against."""
        return peer not in self._convicted and any(peer in suspects for suspects in self._in_doubt.values())

    def peer_gone(self, peer: PeerId) -> None:
        """The connection to a peer has ended: a block asked for again now does not come from it."""
        for blocks in self._open.values():
            for block, senders in blocks.items():
                if not senders.certain and peer in senders.peers:
                    blocks[block] = senders._replace(gone=senders.gone | {peer})

    @property
    def in_doubt(self) -> bool:
        """Whether there are verified blocks that came from one of several peers."""
        return bool(self._late)

    def settle(self, came: Mapping[PeerId, int]) -> None:
        """Put blocks in doubt to the account of a peer from which more has come than is in its account.

        Where two peers sent the same block, one of them has it in its account; nobody has more there than
        it has sent, and what no peer has sent came from the mirror. With refused bytes among what has come,
        the blocks stay in doubt.

        Args:
            came: How many bytes of content came over the connections that stand.
        """
        if self.refused_bytes:
            return
        spare = {peer: count - self._received.get(peer, 0) for peer, count in came.items()}
        for (piece, block), peers in list(self._late.items()):
            sender = max(peers, key=lambda peer: spare.get(peer, 0))
            if spare.get(sender, 0) >= self._block_length(piece, block):
                spare[sender] -= self._block_length(piece, block)
                self._close(piece, block, (sender,))
            else:
                self._close(piece, block, tuple(peer for peer in peers if peer in self._mirrors) or peers)

    def forget_open(self) -> None:
        """Drop what is not verified: the content is being checked from the disk again."""
        self._open.clear()
        self._asked.clear()

    def accounts(self, book: NodeBook) -> tuple[tuple[SourceBytes, ...], int]:
        """Return the bytes by node, and the bytes received from nobody that could be named."""
        sources = []
        unattributed = sum(self._block_length(piece, block) for piece, block in self._late)
        for peer in sorted(self._received.keys() | self._sent.keys()):
            if mirror := self._mirrors.get(peer):
                sources.append(SourceBytes(node=mirror, role="mirror", received=self._received[peer], sent=0))
                continue
            node, role = book.find(peer), role_of(peer)
            received = self._received.get(peer, 0)
            if node is None or role is None:
                unattributed += received
                continue
            sources.append(SourceBytes(node=node, role=role, received=received, sent=self._sent.get(peer, 0)))
        return tuple(sources), unattributed

    def _close(self, piece: int, block: int, peers: tuple[PeerId, ...]) -> None:
        """Credit a verified block if it can have come from one peer only."""
        if len(peers) == 1:
            self._late.pop((piece, block), None)
            self._credit(peers[0], piece, block)
        else:
            self._late[piece, block] = peers

    def _credit(self, peer: PeerId, piece: int, block: int) -> None:
        self._received[peer] = self._received.get(peer, 0) + self._block_length(piece, block)

    def _block_length(self, piece: int, block: int) -> int:
        start = piece * self._piece_bytes + block * self._block_bytes
        return max(0, min(self._block_bytes, self._length - start))


def nodes_of(peers: Iterable[PeerId], book: NodeBook) -> Iterator[NodeId]:
    """Name the peers that the book knows, in a stable order."""
    return (node for node in map(book.find, sorted(peers)) if node is not None)
