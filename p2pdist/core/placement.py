"""Which group a discovered device belongs into: the first rule that fits it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Literal, assert_never

from p2pdist.core.inventory import FoundDevice
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath

RuleKind = Literal["range", "name", "unit", "platform"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRule:
    """Devices that fit *pattern* belong into *group*.

    Attributes:
        pattern: For a ``range``, a network such as ``10.1.0.0/16``, in which the device's newest address is;
            for a ``unit``, a distinguished name at whose end it stands; else a glob such as ``berlin-*``.
        network: Where a ``range`` counts; empty: in every network.
    """

    kind: RuleKind
    pattern: str
    group: GroupPath
    network: str = ""


def check_rule(rule: PlacementRule) -> None:
    """Raise UsageError when no device could ever fit a rule."""
    if rule.kind == "range":
        try:
            ip_network(rule.pattern)
        except ValueError as error:
            raise UsageError(
                f"{rule.pattern[:60]!r} is not a range of addresses ({error})", hint="write 10.1.0.0/16"
            ) from None
    elif rule.kind == "unit" and not _parts(rule.pattern):
        raise UsageError(
            f"{rule.pattern[:60]!r} is not an organisational unit", hint="write OU=Berlin,DC=corp,DC=example"
        )


def place(device: FoundDevice, rules: Iterable[PlacementRule]) -> GroupPath | None:
    """Return the group of the first rule that *device* fits, or None."""
    return next((rule.group for rule in rules if fits(device, rule)), None)


def fits(device: FoundDevice, rule: PlacementRule) -> bool:
    """Whether a device fits a rule."""
    match rule.kind:
        case "range":
            return any(_inside(address, rule) for address in _current(device))
        case "name":
            return any(fnmatchcase(name.casefold(), rule.pattern.casefold()) for name in device.names)
        case "unit":
            unit, wanted = _parts(device.unit), _parts(rule.pattern)
            return bool(wanted) and unit[-len(wanted) :] == wanted
        case "platform":
            return fnmatchcase(device.platform.casefold(), rule.pattern.casefold())
        case _:
            assert_never(rule.kind)


def _current(device: FoundDevice) -> list[tuple[str, str]]:
    """The addresses that were seen last in each network."""
    newest: dict[str, int] = {}
    for each in device.addresses:
        newest[each.network] = max(each.last, newest.get(each.network, 0))
    return [(each.address, each.network) for each in device.addresses if each.last == newest[each.network]]


def _inside(address: tuple[str, str], rule: PlacementRule) -> bool:
    if rule.network not in ("", address[1]):
        return False
    return ip_address(address[0]) in ip_network(rule.pattern)


def _parts(name: str) -> list[str]:
    """Cut a distinguished name at its commas (RFC 4514); an escaped one is part of a value."""
    parts, part, escaped = [], "", False
    for character in name:
        if character == "," and not escaped:
            parts.append(part)
            part = ""
        else:
            part += character
        escaped = character == "\\" and not escaped
    parts.append(part)
    return [p.strip().casefold() for p in parts if p.strip()]
