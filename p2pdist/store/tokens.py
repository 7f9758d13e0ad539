"""Tokens. Their secrets are shown once, to whoever asked for them; here are only hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from p2pdist.errors import TrustError, UsageError
from p2pdist.store.groups import require_group
from p2pdist.store.records import ApiTokenRecord, EnrolmentTokenRecord, record_of
from p2pdist.store.tables import api_tokens, enrolment_tokens


def hash_token(token: str) -> str:
    """Return what is stored of a token. Tokens have 256 bits of randomness: no salt is needed."""
    return hashlib.sha256(b"p2pdist token " + token.encode("utf-8", "surrogatepass")).hexdigest()


def add_enrolment_token(connection: sa.Connection, token: str, record: EnrolmentTokenRecord) -> None:
    """Store a new enrolment token. Raises UsageError if its group is not there."""
    require_group(connection, record.group_path)
    connection.execute(
        enrolment_tokens.insert().values(
            id=record.id,
            hash=hash_token(token),
            group_path=record.group_path,
            uses=record.uses,
            uses_left=record.uses_left,
            expires=record.expires,
            created=record.created,
            created_by=record.created_by,
            note=record.note,
        )
    )


def add_enrolment_tokens(
    connection: sa.Connection, secrets: Sequence[str], records: Sequence[EnrolmentTokenRecord]
) -> None:
    """Store new enrolment tokens. Raises UsageError if a group is not there."""
    for token, record in zip(secrets, records, strict=True):
        add_enrolment_token(connection, token, record)


def of_task(task_id: str, run: int) -> str:
    """Return how the ids of tokens begin that were made for a run of a task."""
    return f"{task_id}-{run}-"


def remove_unused_of_task(connection: sa.Connection, task_id: str, run: int) -> None:
    """Withdraw the tokens that were made for a run and that nobody has used. Others are left."""
    theirs = enrolment_tokens.c.id.startswith(of_task(task_id, run), autoescape=True)
    connection.execute(sa.delete(enrolment_tokens).where(theirs, enrolment_tokens.c.uses_left > 0))


def list_enrolment_tokens(connection: sa.Connection) -> list[EnrolmentTokenRecord]:
    """Return every enrolment token, newest first, used up and late ones included."""
    query = sa.select(enrolment_tokens).order_by(enrolment_tokens.c.created.desc(), enrolment_tokens.c.id)
    return [record_of(row, EnrolmentTokenRecord) for row in connection.execute(query).mappings()]


def remove_enrolment_token(connection: sa.Connection, token_id: str) -> None:
    """Withdraw an enrolment token. Raises UsageError if it is not there."""
    found = connection.execute(sa.delete(enrolment_tokens).where(enrolment_tokens.c.id == token_id))
    if not found.rowcount:
        raise UsageError(f"there is no enrolment token {token_id[:64]}", hint="p2pdist token list shows them")


def use_enrolment_token(connection: sa.Connection, token: str, now: int) -> EnrolmentTokenRecord:
    """Take one use of a token. Of several callers at once, no more succeed than it has uses.

    Raises:
        TrustError: nobody made it, it is used up, or it is late.
    """
    record = check_enrolment_token(connection, token)
    if record.expires <= now:
        expired = datetime.fromtimestamp(record.expires, UTC)
        raise TrustError(
            f"the enrolment token {record.id} expired on {expired:%Y-%m-%d at %H:%M} UTC",
            hint="make a new one: p2pdist token add GROUP",
        )
    taken = connection.execute(
        sa.update(enrolment_tokens)
        .where(enrolment_tokens.c.id == record.id, enrolment_tokens.c.uses_left > 0)
        .values(uses_left=enrolment_tokens.c.uses_left - 1)
    )
    if not taken.rowcount:
        uses = "once" if record.uses == 1 else f"{record.uses} times"
        raise TrustError(
            f"the enrolment token {record.id} has been used {uses}, and that was all",
            hint="make a new one: p2pdist token add GROUP",
        )
    return record


def check_enrolment_token(connection: sa.Connection, token: str) -> EnrolmentTokenRecord:
    """Find a token by its secret, whatever is left of it. Raises TrustError if nobody made it."""
    query = sa.select(enrolment_tokens).where(enrolment_tokens.c.hash == hash_token(token))
    row = connection.execute(query).mappings().first()
    if row is None:
        raise TrustError(
            "the enrolment token is not one of this fleet's, or was withdrawn",
            hint="check it for typing errors, or make a new one: p2pdist token add GROUP",
        )
    return record_of(row, EnrolmentTokenRecord)


def add_api_token(connection: sa.Connection, token: str, record: ApiTokenRecord) -> None:
    """Store a new API token."""
    connection.execute(
        api_tokens.insert().values(
            id=record.id,
            hash=hash_token(token),
            name=record.name,
            role=record.role,
            expires=record.expires,
            created=record.created,
        )
    )


def find_api_token(connection: sa.Connection, token: str, now: int) -> ApiTokenRecord | None:
    """Return the valid API token with this secret, or None."""
    query = sa.select(api_tokens).where(
        api_tokens.c.hash == hash_token(token),
        sa.or_(api_tokens.c.expires.is_(None), api_tokens.c.expires > now),
    )
    row = connection.execute(query).mappings().first()
    return record_of(row, ApiTokenRecord) if row is not None else None


def list_api_tokens(connection: sa.Connection) -> list[ApiTokenRecord]:
    """Return every API token, newest first."""
    query = sa.select(api_tokens).order_by(api_tokens.c.created.desc(), api_tokens.c.id)
    return [record_of(row, ApiTokenRecord) for row in connection.execute(query).mappings()]


def remove_api_token(connection: sa.Connection, token_id: str) -> None:
    """Withdraw an API token. Raises UsageError if it is not there."""
    found = connection.execute(sa.delete(api_tokens).where(api_tokens.c.id == token_id))
    if not found.rowcount:
        raise UsageError(f"there is no API token {token_id[:64]}", hint="p2pdist api-token list shows them")
