"""Rules that say which group a discovered device belongs into, in their order."""

from __future__ import annotations

import sqlalchemy as sa

from p2pdist import limits
from p2pdist.core.placement import PlacementRule, check_rule
from p2pdist.errors import UsageError
from p2pdist.store.groups import require_group
from p2pdist.store.records import PlacementRuleRecord, record_of
from p2pdist.store.sql import clean
from p2pdist.store.tables import placement_rules


def add_rule(connection: sa.Connection, rule: PlacementRule, *, now: int, created_by: str) -> int:
    """Put a rule behind those that are there; return its number.

    Raises:
        UsageError: no device can fit it, its group is not there, or there are too many.
    """
    check_rule(rule)
    require_group(connection, rule.group)
    count = connection.execute(sa.select(sa.func.count()).select_from(placement_rules)).scalar_one()
    if count >= limits.PLACEMENT_RULES_MAX:
        raise UsageError(f"there are {count} placement rules already", hint="remove some first")
    row = {
        "kind": rule.kind,
        "pattern": clean(rule.pattern),
        "network": clean(rule.network),
        "group_path": rule.group,
        "created": now,
        "created_by": created_by,
    }
    added = connection.execute(placement_rules.insert().values(**row)).inserted_primary_key
    assert added is not None  # one row was inserted
    number: int = added[0]
    return number


def list_rules(connection: sa.Connection) -> list[PlacementRuleRecord]:
    """Return every rule, in the order in which they are tried."""
    query = sa.select(placement_rules).order_by(placement_rules.c.number)
    return [record_of(row, PlacementRuleRecord) for row in connection.execute(query).mappings()]


def remove_rule(connection: sa.Connection, number: int) -> None:
    """Remove a rule. Raises UsageError if there is none with this number."""
    gone = connection.execute(sa.delete(placement_rules).where(placement_rules.c.number == number))
    if not gone.rowcount:
        raise UsageError(
            f"there is no placement rule {number}", hint="p2pdist inventory rule list shows them"
        )
