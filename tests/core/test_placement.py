"""Which group a discovered device belongs into."""

from __future__ import annotations

import pytest

from p2pdist.core.inventory import FoundDevice, describe
from p2pdist.core.placement import PlacementRule, RuleKind, check_rule, fits, place
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath
from tests.core.seen import GUIDS, NOW, seen


def rule(kind: RuleKind, pattern: str, group: str = "/berlin", network: str = "") -> PlacementRule:
    return PlacementRule(kind=kind, pattern=pattern, group=GroupPath(group), network=network)


DEVICE: FoundDevice = describe(
    "d1",
    [
        seen(addresses=["10.1.0.7"], names=["BER-PC7"]),
        seen(addresses=["10.2.0.7"], names=["BER-PC7"], last=NOW - 86_400),
        seen(
            method="directory",
            names=["ber-pc7.corp.example"],
            guid=GUIDS[0],
            unit="OU=Sales\\, East,OU=Berlin,DC=corp,DC=example",
            platform="Windows 11 Pro",
        ),
    ],
)


@pytest.mark.parametrize(
    ("kind", "pattern", "expected"),
    [
        ("range", "10.1.0.0/24", True),
        ("range", "10.2.0.0/24", False),  # that was yesterday
        ("range", "fd00::/8", False),
        ("name", "ber-*", True),
        ("name", "*.corp.example", True),
        ("name", "par-*", False),
        ("unit", "ou=berlin,dc=corp,dc=example", True),
        ("unit", "OU=Sales\\, East,OU=Berlin,DC=corp,DC=example", True),
        ("unit", "OU=Berlin", False),  # not the whole end
        ("unit", "East,OU=Berlin,DC=corp,DC=example", False),  # half of a name
        ("platform", "windows*", True),
        ("platform", "linux*", False),
    ],
)
def test_a_rule_fits_by_range_name_unit_or_platform(kind: RuleKind, pattern: str, expected: bool) -> None:
    assert fits(DEVICE, rule(kind, pattern)) is expected


def test_a_range_can_be_bound_to_the_network_that_has_it() -> None:
    assert fits(DEVICE, rule("range", "10.0.0.0/8", network="berlin"))
    assert not fits(DEVICE, rule("range", "10.0.0.0/8", network="paris"))


def test_the_first_rule_that_fits_decides() -> None:
    rules = [rule("name", "par-*", "/a"), rule("range", "10.0.0.0/8", "/b"), rule("name", "*", "/c")]
    assert place(DEVICE, rules) == "/b"
    assert place(DEVICE, []) is None


@pytest.mark.parametrize(
    ("kind", "pattern"), [("range", "10.1.0.7/8"), ("range", "all"), ("unit", " , "), ("range", "")]
)
def test_a_rule_that_no_device_can_fit_is_refused(kind: RuleKind, pattern: str) -> None:
    with pytest.raises(UsageError):
        check_rule(rule(kind, pattern))
