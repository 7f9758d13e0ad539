"""The tree of administration groups. A group's ancestors always exist; the root ``/`` always does."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from p2pdist import limits
from p2pdist.core.scope import ancestors, covers
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath
from p2pdist.store.records import GroupRecord, record_of
from p2pdist.store.sql import below
from p2pdist.store.tables import deployments, devices, enrolment_tokens, groups, placement_rules


def list_groups(connection: sa.Connection) -> list[GroupRecord]:
    """Return every group, parents before children, with the number of devices directly in it."""
    count = (
        sa.select(devices.c.group_path, sa.func.count().label("devices"))
        .where(devices.c.revoked.is_(None))
        .group_by(devices.c.group_path)
        .subquery()
    )
    query = (
        sa.select(groups, sa.func.coalesce(count.c.devices, 0).label("devices"))
        .outerjoin(count, count.c.group_path == groups.c.path)
        .order_by(groups.c.path)
    )
    found = [record_of(row, GroupRecord) for row in connection.execute(query).mappings()]
    return sorted(found, key=lambda group: group.path.split("/"))


def group_exists(connection: sa.Connection, path: GroupPath) -> bool:
    """Whether there is such a group."""
    return connection.execute(sa.select(groups.c.path).where(groups.c.path == path)).first() is not None


def require_group(connection: sa.Connection, path: GroupPath) -> None:
    """Raise UsageError unless there is such a group."""
    if not group_exists(connection, path):
        raise UsageError(f"there is no group {path}", hint=f"make it: p2pdist group add {path}")


def add_group(connection: sa.Connection, path: GroupPath, now: int) -> list[GroupPath]:
    """Make a group and those of its ancestors that are missing; return what was made.

    Raises:
        UsageError: it is there already.
    """
    if path != "/" and group_exists(connection, path):
        raise UsageError(f"the group {path} is there already")
    made = [group for group in reversed(list(ancestors(path))) if not group_exists(connection, group)]
    if made:
        connection.execute(groups.insert(), [{"path": group, "created": now} for group in made])
    return made


def move_group(connection: sa.Connection, old: GroupPath, new: GroupPath) -> list[GroupPath]:
    """Give a group and all its subgroups a new path; devices, tokens and deployments follow.

    Returns:
        The new paths.

    Raises:
        UsageError: it is not there, the new path is taken or has no parent, or lies below the old one.
    """
    if old == "/":
        raise UsageError("the root group cannot be moved")
    if covers(old, new):
        raise UsageError(f"{old} cannot be moved to {new}, into itself")
    require_group(connection, old)
    parent = GroupPath(new.rpartition("/")[0] or "/")
    require_group(connection, parent)
    if group_exists(connection, new):
        raise UsageError(f"the group {new} is there already", hint="choose another name")
    moved = connection.execute(sa.select(groups.c.path).where(below(groups.c.path, old))).scalars().all()
    renamed = [(path, GroupPath(new + path[len(old) :])) for path in moved]
    for _, path in renamed:
        if len(path) > limits.GROUP_PATH_CHARS_MAX:
            raise UsageError(f"the path {path[:60]}… would be too long", hint="choose a shorter name")
    for before, after in renamed:
        connection.execute(sa.update(groups).where(groups.c.path == before).values(path=after))
    return sorted(after for _, after in renamed)


def remove_group(connection: sa.Connection, path: GroupPath) -> None:
    """Remove an empty group.

    Raises:
        UsageError: it is not there, or something still refers to it.
    """
    if path == "/":
        raise UsageError("the root group cannot be removed")
    require_group(connection, path)
    for what, column in _references():
        if connection.execute(sa.select(column).where(column == path).limit(1)).first():
            raise UsageError(f"the group {path} still has {what}", hint="move or remove them first")
    inner = connection.execute(sa.select(groups.c.path).where(below(groups.c.path, path))).scalars().all()
    if len(inner) > 1:
        raise UsageError(f"the group {path} still has subgroups", hint="move or remove them first")
    connection.execute(sa.delete(enrolment_tokens).where(enrolment_tokens.c.group_path == path))
    connection.execute(sa.delete(groups).where(groups.c.path == path))


def _references() -> Sequence[tuple[str, sa.Column[str]]]:
    return [
        ("devices", devices.c.group_path),
        ("deployments", deployments.c.group_path),
        ("placement rules", placement_rules.c.group_path),
    ]
