"""Handlers: discovered devices, their conflicts, and where they belong."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from p2pdist import limits
from p2pdist.core.inventory import FoundDevice
from p2pdist.core.placement import PlacementRule, place
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId, parse_group
from p2pdist.server.api.context import Api
from p2pdist.server.api.table import Call
from p2pdist.store import devices, inventory, placement
from p2pdist.store.records import DeviceRecord, PlacementRuleRecord
from p2pdist.wire import api as wire


async def list_found(api: Api, call: Call[None]) -> wire.FoundList:
    """Discovered devices, by their ids."""
    limit = call.query_int("limit", limits.INVENTORY_ROWS_MAX, at_most=limits.INVENTORY_ROWS_MAX)
    found = await api.store.read(
        inventory.list_found,
        network=call.query.get("network", ""),
        after=call.query.get("after", ""),
        limit=limit,
    )
    return wire.FoundList(
        devices=await _shown(api, found), next=found[-1].id if found and len(found) == limit else ""
    )


async def show_found(api: Api, call: Call[None]) -> wire.FoundInfo:
    """One discovered device, by its id or the beginning of it."""
    found = await api.store.read(inventory.find_found, call.path["id"])
    return (await _shown(api, [found]))[0]


async def forget_found(api: Api, call: Call[None]) -> wire.FoundInfo:
    """Forget a device; it comes back when it is seen again."""
    chosen = call.path["id"]
    found = await api.change(call, "inventory.forget", chosen, inventory.forget_found, chosen)
    return (await _shown(api, [found]))[0]


async def list_conflicts(api: Api, call: Call[None]) -> wire.ConflictList:
    """What several devices claim."""
    return wire.ConflictList(
        conflicts=[
            wire.ConflictInfo(
                kind=conflict.kind,
                value=conflict.value,
                network=conflict.network,
                since=conflict.since,
                devices=[wire.Contender(id=each.id, name=each.name, last=each.last) for each in contenders],
            )
            for conflict, contenders in await api.store.read(inventory.list_conflicts)
        ]
    )


async def list_rules(api: Api, call: Call[None]) -> wire.RuleList:
    """Every placement rule, in their order."""
    return wire.RuleList(rules=[_rule_info(record) for record in await api.store.read(placement.list_rules)])


async def add_rule(api: Api, call: Call[wire.NewRule]) -> wire.RuleInfo:
    """Add a placement rule behind those that are there."""
    body = call.body
    rule = PlacementRule(
        kind=body.kind, pattern=body.pattern, group=parse_group(body.group), network=body.network
    )
    subject = f"{rule.kind} {rule.pattern} to {rule.group}"
    number = await api.change(
        call, "inventory.rule.add", subject, placement.add_rule, rule, now=call.now, created_by=call.actor
    )
    records = await api.store.read(placement.list_rules)
    return next(_rule_info(record) for record in records if record.number == number)


async def remove_rule(api: Api, call: Call[None]) -> wire.Done:
    """Remove a placement rule."""
    text = call.path["id"]
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError(f"{text[:20]!r} is no placement rule's number")
    await api.change(call, "inventory.rule.remove", text, placement.remove_rule, int(text))
    return wire.Done()


async def _shown(api: Api, found: Sequence[FoundDevice]) -> list[wire.FoundInfo]:
    rules = [record.rule for record in await api.store.read(placement.list_rules)]
    nodes = [NodeId(each.node) for each in found if each.node]
    managed = await api.store.read(devices.find_devices, nodes)
    attached, resting = api.attached(), api.resting()
    return [_found_info(each, managed.get(NodeId(each.node)), attached, resting, rules) for each in found]


def _found_info(
    found: FoundDevice,
    managed: DeviceRecord | None,
    attached: Mapping[NodeId, NodeId | None],
    resting: Collection[NodeId],
    rules: Sequence[PlacementRule],
) -> wire.FoundInfo:
    return wire.FoundInfo(
        id=found.id,
        name=managed.name if managed is not None else found.name,
        state="unmanaged"
        if managed is None
        else "revoked"
        if managed.revoked is not None
        else "online"
        if managed.node in attached
        else "resting"
        if managed.node in resting
        else "offline",
        node=found.node,
        group=managed.group_path if managed is not None else place(found, rules) or "",
        known_by=found.known_by,
        names=list(found.names),
        guid=found.guid,
        macs=list(found.macs),
        addresses=[
            wire.FoundAddress(address=each.address, network=each.network, first=each.first, last=each.last)
            for each in found.addresses
        ],
        platform=found.platform,
        unit=found.unit,
        services=list(found.services),
        methods=list(found.methods),
        networks=list(found.networks),
        first=found.first,
        last=found.last,
    )


def _rule_info(record: PlacementRuleRecord) -> wire.RuleInfo:
    return wire.RuleInfo(
        number=record.number,
        kind=record.kind,
        pattern=record.pattern,
        group=record.group_path,
        network=record.network,
        created=record.created,
        created_by=record.created_by,
    )
