"""Commands: discovered devices, and where they belong."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from p2pdist.cli.client import Client, segment
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.output import say, show, show_facts, show_json
from p2pdist.cli.words import ago, moment, short
from p2pdist.wire import api as wire

inventory = App(name="inventory", help="Devices that discovery has found, managed or not.")
rule = App(name="rule", help="Rules: which group discovered devices belong into.")
inventory.command(rule)


@inventory.command(name="list")
def inventory_list(*, network: str = "", common: Common = DEFAULT) -> None:
    """List every discovered device.

    Parameters
    ----------
    network
        Only those that were seen in it: the id of the node that polled it.
    """
    with common.client() as client:
        answer = all_found(client, network)
    now = time.time()
    rows = [
        (
            found.id,
            found.name,
            found.state,
            found.addresses[0].address if found.addresses else "-",
            found.macs[0] if found.macs else "-",
            found.group or "-",
            found.known_by,
            ago(found.last, now),
        )
        for found in answer.devices
    ]
    columns = ("id", "name", "state", "address", "mac", "group", "known by", "seen")
    show(answer, common.output, columns, rows, empty="nothing was discovered yet")


def all_found(client: Client, network: str = "") -> wire.FoundList:
    """Return every discovered device; with *network*, those that were seen in it."""
    devices: list[wire.FoundInfo] = []
    after = ""
    while True:
        answer = client.get("/inventory", wire.FoundList, network=network, after=after)
        devices += answer.devices
        if not answer.next:
            return msgspec.structs.replace(answer, devices=devices)
        after = answer.next


@inventory.command(name="show")
def inventory_show(device: Annotated[str, Parameter(name="ID")], /, *, common: Common = DEFAULT) -> None:
    """Show one discovered device, with the addresses that it has had.

    Parameters
    ----------
    device
        Its id in `p2pdist inventory list`, or the beginning of it.
    """
    with common.client() as client:
        found = client.get(f"/inventory/{segment(device)}", wire.FoundInfo)
    addresses = [
        f"{each.address} in {short(each.network)}, {moment(each.first)} to {moment(each.last)}"
        for each in found.addresses
    ]
    facts = [
        ("id", found.id),
        ("name", found.name),
        ("other names", ", ".join(name for name in found.names if name != found.name)),
        ("state", found.state),
        ("node", found.node),
        ("group", found.group),
        ("known by", found.known_by),
        ("platform", found.platform),
        ("unit", found.unit),
        ("directory's id", found.guid),
        ("macs", ", ".join(found.macs)),
        ("services", ", ".join(found.services)),
        ("found by", ", ".join(found.methods)),
        ("seen", f"{moment(found.first)} to {moment(found.last)}"),
        ("addresses", "\n".join(addresses)),
    ]
    show_facts(found, common.output, [(name, value) for name, value in facts if value])


@inventory.command(name="conflicts")
def inventory_conflicts(*, common: Common = DEFAULT) -> None:
    """List what several devices claim: one MAC, one name, one address."""
    with common.client() as client:
        answer = client.get("/inventory/conflicts", wire.ConflictList)
    rows = [
        (
            conflict.kind,
            conflict.value,
            short(conflict.network) or "everywhere",
            ", ".join(f"{each.name} ({each.id})" for each in conflict.devices),
            moment(conflict.since),
        )
        for conflict in answer.conflicts
    ]
    columns = ("what", "value", "network", "claimed by", "since")
    show(answer, common.output, columns, rows, empty="no conflicts")


@inventory.command(name="forget")
def inventory_forget(device: Annotated[str, Parameter(name="ID")], /, *, common: Common = DEFAULT) -> None:
    """Forget a device until it is seen again."""
    with common.client() as client:
        found = client.delete(f"/inventory/{segment(device)}", wire.FoundInfo)
    if common.output == "json":
        show_json(found)
    else:
        say(f"forgot {found.name} ({found.id}); it comes back when it is seen again")


@rule.command(name="add")
def rule_add(
    kind: Annotated[wire.RuleKind, Parameter(name="KIND")],
    pattern: Annotated[str, Parameter(name="PATTERN")],
    group: Annotated[str, Parameter(name="GROUP")],
    /,
    *,
    network: str = "",
    common: Common = DEFAULT,
) -> None:
    """Add a rule behind those that are there; the first that fits a device decides.

        p2pdist inventory rule add range 10.1.0.0/16 /emea/berlin
        p2pdist inventory rule add name "par-*" /emea/paris
        p2pdist inventory rule add unit OU=Sales,DC=corp,DC=example /emea

    Parameters
    ----------
    kind
        What is looked at: range, name, unit or platform.
    pattern
        A range of addresses, a unit's distinguished name, or a glob.
    group
        Where devices that fit belong.
    network
        Where a range counts, by the node that polls it; without it, everywhere.
    """
    body = wire.NewRule(kind=kind, pattern=pattern, group=group, network=network)
    with common.client() as client:
        answer = client.post("/inventory/rules", wire.RuleInfo, body)
    if common.output == "json":
        show_json(answer)
    else:
        say(f"rule {answer.number}: {answer.kind} {answer.pattern} belongs into {answer.group}")


@rule.command(name="list")
def rule_list(*, common: Common = DEFAULT) -> None:
    """List the rules in the order in which they are tried."""
    with common.client() as client:
        answer = client.get("/inventory/rules", wire.RuleList)
    rows = [
        (str(each.number), each.kind, each.pattern, each.group, short(each.network) or "-", each.created_by)
        for each in answer.rules
    ]
    columns = ("rule", "kind", "pattern", "group", "network", "made by")
    show(answer, common.output, columns, rows, right=("rule",), empty="no placement rules")


@rule.command(name="remove")
def rule_remove(number: Annotated[int, Parameter(name="NUMBER")], /, *, common: Common = DEFAULT) -> None:
    """Remove a rule."""
    with common.client() as client:
        answer = client.delete(f"/inventory/rules/{number}", wire.Done)
    if common.output == "json":
        show_json(answer)
    else:
        say(f"removed rule {number}")
