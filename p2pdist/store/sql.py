"""Small things that the query modules share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from p2pdist.ids import GroupPath

T = TypeVar("T")

_VARIABLES_MAX = 5_000  # of 32,766 in SQLite and 65,535 in PostgreSQL


def upsert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, keep: Iterable[str] = ()
) -> None:
    """Insert *rows*, or update those whose primary key is there; columns in *keep* then stay."""
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    changed = [name for name in rows[0] if name not in keys and name not in set(keep)]
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement: Any = insert(table)
    if changed:
        statement = statement.on_conflict_do_update(
            index_elements=keys, set_={name: statement.excluded[name] for name in changed}
        )
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    connection.execute(statement, [dict(row) for row in rows])


def in_chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut *items* into lists that fit into one statement."""
    iterator = iter(items)
    while chunk := list(islice(iterator, _VARIABLES_MAX)):
        yield chunk


def below(column: sa.ColumnElement[Any], group: GroupPath) -> sa.ColumnElement[bool]:
    """The condition that a column's group is *group* or one of its subgroups."""
    if group == "/":
        return sa.true()
    return sa.or_(column == group, column.startswith(group + "/", autoescape=True))


def clean(text: str) -> str:
    """Replace what PostgreSQL cannot store in a text: the zero character."""
    return text.replace("\0", "\ufffd")


def clamp(number: int) -> int:
    """Return the nearest number that fits into a column of 32 bits."""
    return max(-(2**31), min(2**31 - 1, number))
