"""Small things that the query modules share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from p2pdist.ids import GroupPath

T = TypeVar("T")

_VARIABLES_MAX = (
    900  # of 1,000 in a list at the least generous database, and 2,100 in a statement at the next
)


def upsert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, keep: Iterable[str] = ()
) -> None:
    """Insert *rows*, or update those whose primary key is there; columns in *keep* then stay.

    A database that has a statement for it gets that; any other finds out row by row.
    """
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    changed = [name for name in rows[0] if name not in keys and name not in set(keep)]
    statement = STATEMENTS.get(connection.dialect.name)
    if statement is not None:
        connection.execute(statement(table, keys, changed), [dict(row) for row in rows])
        return
    for row in rows:
        _put(connection, table, row, keys, changed)


def _on_conflict(table: sa.Table, keys: list[str], changed: list[str], insert: Any) -> sa.Insert:
    statement = insert(table)
    new = {name: statement.excluded[name] for name in changed}
    done: sa.Insert = (
        statement.on_conflict_do_update(index_elements=keys, set_=new)
        if changed
        else statement.on_conflict_do_nothing(index_elements=keys)
    )
    return done


def _on_duplicate_key(table: sa.Table, keys: list[str], changed: list[str]) -> sa.Insert:
    statement = mysql.insert(table)
    if not changed:  # unlike INSERT IGNORE, this lets no other error pass
        return statement.on_duplicate_key_update({keys[0]: table.c[keys[0]]})
    return statement.on_duplicate_key_update({name: statement.inserted[name] for name in changed})


STATEMENTS: dict[str, Callable[[sa.Table, list[str], list[str]], sa.Insert]] = {
    "sqlite": lambda table, keys, changed: _on_conflict(table, keys, changed, sqlite.insert),
    "postgresql": lambda table, keys, changed: _on_conflict(table, keys, changed, postgresql.insert),
    "mysql": _on_duplicate_key,
    "mariadb": _on_duplicate_key,
}
"""How each database says it that has one statement for :func:`upsert`, by SQLAlchemy's name of it."""


def _put(
    connection: sa.Connection,
    table: sa.Table,
    row: Mapping[str, Any],
    keys: Sequence[str],
    changed: Sequence[str],
) -> None:
    """Update a row, or else insert it; the primary key judges between writers that do so at once."""
    same = sa.and_(*(table.c[name] == row[name] for name in keys))
    update = sa.update(table).where(same).values({name: row[name] for name in changed or keys})
    if connection.execute(update).rowcount:
        return
    try:
        with connection.begin_nested():
            connection.execute(table.insert(), dict(row))
    except IntegrityError:
        if not connection.execute(update).rowcount:  # it was no other writer's row that was in the way
            raise


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
