"""What vendors offer, for somebody to have it signed: each version once, whoever found it, however often."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from p2pdist import limits
from p2pdist.core.debversions import is_newer
from p2pdist.errors import PeerError, UsageError
from p2pdist.ids import NodeId
from p2pdist.store.records import ProposalRecord, record_of
from p2pdist.store.sql import clean, upsert
from p2pdist.store.tables import proposals, tasks
from p2pdist.store.tasks import is_known
from p2pdist.wire.following import Follow, Offer
from p2pdist.wire.tasks import TaskOffers
from p2pdist.wire.work import decode_work, encode_work


def record_offers(connection: sa.Connection, node: NodeId, said: TaskOffers, now: int) -> None:
    """Take in what a run has found on offer.

    New is what nobody has found before; what the same task found and does not any more is superseded or
    gone. Nothing is taken from an index that is older than one that came of this task before, whichever node
    had read it.
    """
    if not is_known(connection, node, said) or not _is_newest(connection, said, now):
        return
    offers = {proposal_id(offer): offer for offer in said.offers}
    known = _records(connection, proposals.c.id.in_(list(offers)))
    rows = []
    for id, offer in offers.items():
        before = known.get(id)
        if before is None or before.task == said.task or before.state in ("superseded", "gone"):
            rows.append(_row(id, offer, before, said.task, now))
    earlier = sa.and_(proposals.c.task == clean(said.task), proposals.c.state == "new")
    for id, record in _records(connection, earlier).items():
        if id not in offers:
            state = "superseded" if _is_superseded(record, said) else "gone"
            connection.execute(sa.update(proposals).where(proposals.c.id == id).values(state=state))
    upsert(connection, proposals, rows[: _room(connection, now) + len(known)])


def list_proposals(
    connection: sa.Connection, *, state: str = "", after: str = "", limit: int = limits.API_ROWS_MAX
) -> list[ProposalRecord]:
    """Return proposals by their ids, those *after* one, and in one *state* if it is given."""
    query = sa.select(proposals).where(proposals.c.id > clean(after))
    if state:
        query = query.where(proposals.c.state == clean(state))
    rows = connection.execute(query.order_by(proposals.c.id).limit(limit)).mappings()
    return [record_of(row, ProposalRecord) for row in rows]


def find_proposal(connection: sa.Connection, text: str) -> ProposalRecord:
    """Return the proposal whose id begins with *text*.

    Raises:
        UsageError: there is none, or more than one.
    """
    query = sa.select(proposals).where(proposals.c.id.startswith(clean(text), autoescape=True)).limit(2)
    found = connection.execute(query).mappings().all() if text else []
    if not found:
        raise UsageError(f"no proposal is {text[:20]!r}", hint="p2pdist proposal list shows them")
    if len(found) > 1:
        raise UsageError(f"several proposals begin with {text[:20]!r}", hint="write more of the id")
    return record_of(found[0], ProposalRecord)


def drop_proposal(connection: sa.Connection, text: str) -> ProposalRecord:
    """Say that nobody wants a proposal: it is not made again while it is on offer. Raises UsageError."""
    record = find_proposal(connection, text)
    connection.execute(sa.update(proposals).where(proposals.c.id == record.id).values(state="dropped"))
    return msgspec.structs.replace(record, state="dropped")


def proposal_id(offer: Offer) -> str:
    """Return the name of an offer: the same for the same content, whoever offers it."""
    content = offer.sha256 or offer.url
    words = "\0".join((offer.product, offer.version, offer.architecture, content))
    return hashlib.blake2b(words.encode(), digest_size=6).hexdigest()


def _is_newest(connection: sa.Connection, said: TaskOffers, now: int) -> bool:
    """Whether nothing newer came of the task; if so its next runs take nothing older than this."""
    where = tasks.c.id == clean(said.task)
    row = connection.execute(sa.select(tasks.c.work).where(where)).first()
    try:
        work = decode_work(row.work) if row is not None else None
    except PeerError:
        return False
    if not isinstance(work, Follow) or 0 < said.date < work.seen:
        return False
    if work.seen < said.date <= now + limits.FOLLOW_AHEAD_S_MAX:
        seen = encode_work(msgspec.structs.replace(work, seen=said.date))
        connection.execute(sa.update(tasks).where(where).values(work=seen))
    return True


def _is_superseded(record: ProposalRecord, said: TaskOffers) -> bool:
    return any(
        (offer.product, offer.architecture) == (record.product, record.architecture)
        and is_newer(offer.version, record.version)
        for offer in said.offers
    )


def _row(id: str, offer: Offer, before: ProposalRecord | None, task: str, now: int) -> dict[str, Any]:
    again = before is None or before.state in ("superseded", "gone")
    return {
        "id": id,
        **msgspec.structs.asdict(offer),
        "task": clean(task),
        "state": "new" if again or before is None else before.state,
        "first": before.first if before is not None else now,
        "last": now,
    }


def _room(connection: sa.Connection, now: int) -> int:
    """Return how many proposals there is room for, once what is old and not on offer is forgotten."""
    closed = proposals.c.state != "new"
    connection.execute(sa.delete(proposals).where(closed, proposals.c.last < now - limits.PROPOSAL_LIFE_S))
    count = connection.execute(sa.select(sa.func.count()).select_from(proposals)).scalar_one()
    over = count + limits.FOLLOW_OFFERS_MAX - limits.PROPOSALS_MAX
    if over > 0:
        oldest = sa.select(proposals.c.id).where(closed).order_by(proposals.c.last).limit(over)
        ids = list(connection.execute(oldest).scalars())
        connection.execute(sa.delete(proposals).where(proposals.c.id.in_(ids)))
        count -= len(ids)
    return max(0, limits.PROPOSALS_MAX - count)


def _records(connection: sa.Connection, where: sa.ColumnElement[bool]) -> Mapping[str, ProposalRecord]:
    rows = connection.execute(sa.select(proposals).where(where)).mappings()
    return {str(row["id"]): record_of(row, ProposalRecord) for row in rows}
