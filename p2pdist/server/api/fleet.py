"""Handlers: groups, tokens, devices, distribution points."""

from __future__ import annotations

from collections import Counter

from p2pdist.core.scope import covers
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath, parse_group
from p2pdist.server.api.context import Api, call_words, device_deployment, device_info
from p2pdist.server.api.table import Call
from p2pdist.server.tokens import new_token, token_id
from p2pdist.store import content, deployments, devices, groups, tokens
from p2pdist.store.records import ApiTokenRecord, EnrolmentTokenRecord
from p2pdist.wire import api as wire
from p2pdist.wire.requests import EnrolRequest

# Groups ----------------------------------------------------------------------------------------------


async def list_groups(api: Api, call: Call[None]) -> wire.GroupList:
    """Every group."""
    found = await api.store.read(groups.list_groups)
    return wire.GroupList(
        groups=[
            wire.GroupInfo(
                path=group.path,
                created=group.created,
                devices=group.devices,
                points=[grant.node for grant in api.points_of(group.path, call.now)],
            )
            for group in found
        ]
    )


async def add_group(api: Api, call: Call[wire.NewGroup]) -> wire.GroupsChanged:
    """Make a group with its missing ancestors."""
    path = parse_group(call.body.path)
    made = await api.change(call, "group.add", path, groups.add_group, path, call.now)
    return wire.GroupsChanged(paths=[str(group) for group in made])


async def move_group(api: Api, call: Call[wire.MoveGroup]) -> wire.GroupsChanged:
    """Move a group with everything in it; its devices are told."""
    old, new = parse_group(call.body.path), parse_group(call.body.to)
    moved = await api.change(call, "group.move", f"{old} to {new}", groups.move_group, old, new)
    await api.service.plane.groups_changed()
    stale = [grant for grant in api.grants.values() if covers(old, grant.scope)]
    warnings = [
        f"the seed grant of {grant.node} is for {grant.scope}, which is {_moved(grant.scope, old, new)} now:"
        f" sign a new grant for it"
        for grant in stale
    ]
    return wire.GroupsChanged(paths=[str(path) for path in moved], warnings=warnings)


async def remove_group(api: Api, call: Call[wire.RemoveGroup]) -> wire.Done:
    """Remove an empty group."""
    path = parse_group(call.body.path)
    await api.change(call, "group.remove", path, groups.remove_group, path)
    return wire.Done()


def _moved(path: GroupPath, old: GroupPath, new: GroupPath) -> str:
    return new + path[len(old) :]


# Tokens ----------------------------------------------------------------------------------------------


async def add_token(api: Api, call: Call[wire.NewToken]) -> wire.MadeToken:
    """Make an enrolment token; its secret is shown this once."""
    secret = new_token()
    record = EnrolmentTokenRecord(
        id=token_id(),
        group_path=parse_group(call.body.group),
        uses=call.body.uses,
        uses_left=call.body.uses,
        expires=call.now + call.body.life_s,
        created=call.now,
        created_by=call.actor,
        note=call.body.note.replace("\0", ""),
    )
    await api.change(call, "token.add", record.id, tokens.add_enrolment_token, secret, record)
    return wire.MadeToken(id=record.id, token=secret, expires=record.expires)


async def list_tokens(api: Api, call: Call[None]) -> wire.TokenList:
    """Every enrolment token."""
    return wire.TokenList(
        tokens=[
            wire.TokenInfo(
                id=record.id,
                group=record.group_path,
                state="expired" if record.expires <= call.now else "valid" if record.uses_left else "used up",
                uses=record.uses,
                uses_left=record.uses_left,
                expires=record.expires,
                created=record.created,
                created_by=record.created_by,
                note=record.note,
            )
            for record in await api.store.read(tokens.list_enrolment_tokens)
        ]
    )


async def remove_token(api: Api, call: Call[None]) -> wire.Done:
    """Withdraw an enrolment token."""
    chosen = call.path["id"]
    await api.change(call, "token.remove", chosen, tokens.remove_enrolment_token, chosen)
    return wire.Done()


async def add_enrolment(api: Api, call: Call[wire.NewEnrolment]) -> wire.EnrolledNode:
    """Enrol a machine that cannot dial, by the request that somebody has carried here."""
    enrolled = await api.service.plane.admission.enrol_from(
        f"a file of {call.actor}", EnrolRequest(sealed=call.body.sealed)
    )
    await api.note(call, "device.enrol", enrolled.node, f"by file, into {enrolled.group}")
    return wire.EnrolledNode(
        fleet=api.service.home.fleet,
        node=enrolled.node,
        group=enrolled.group,
        certificate=enrolled.certificate.decode(),
    )


async def add_api_token(api: Api, call: Call[wire.NewApiToken]) -> wire.MadeToken:
    """Make a token for this API; its secret is shown this once."""
    secret = new_token()
    record = ApiTokenRecord(
        id=token_id(),
        name=call.body.name.replace("\0", ""),
        role=call.body.role,
        expires=None if call.body.life_s is None else call.now + call.body.life_s,
        created=call.now,
    )
    await api.change(
        call, "api-token.add", f"{record.id} {record.name}", tokens.add_api_token, secret, record
    )
    return wire.MadeToken(id=record.id, token=secret, expires=record.expires)


async def list_api_tokens(api: Api, call: Call[None]) -> wire.ApiTokenList:
    """Every token for this API."""
    return wire.ApiTokenList(
        tokens=[
            wire.ApiTokenInfo(
                id=record.id,
                name=record.name,
                role=record.role,
                expires=record.expires,
                created=record.created,
            )
            for record in await api.store.read(tokens.list_api_tokens)
        ]
    )


async def remove_api_token(api: Api, call: Call[None]) -> wire.Done:
    """Withdraw a token for this API."""
    chosen = call.path["id"]
    await api.change(call, "api-token.remove", chosen, tokens.remove_api_token, chosen)
    return wire.Done()


# Devices ---------------------------------------------------------------------------------------------


async def list_devices(api: Api, call: Call[None]) -> wire.DeviceList:
    """The devices of a group with its subgroups."""
    group = parse_group(call.query.get("group", "/"))
    attached = api.attached()
    return wire.DeviceList(
        devices=[
            device_info(record, attached, point=api.is_point(record.node, call.now), resting=api.resting())
            for record in await api.store.read(devices.list_devices, group=group)
        ]
    )


async def show_device(api: Api, call: Call[None]) -> wire.DeviceDetail:
    """One device, by id, the beginning of its id, or name."""
    record = await api.store.read(devices.resolve_device, call.path["id"])
    attached = api.attached()
    history = await api.store.read(deployments.device_history, record.node)
    clones = await api.store.read(devices.list_clones, record.node)
    active = {order.id for order in await api.store.read(deployments.active_orders)}
    said = []
    for state in history:
        received = await api.store.read(content.sources_by_target, state.target)
        said.append(
            device_deployment(
                state,
                deployment=state.deployment,
                target=state.target,
                device=record,
                online=record.node in attached,
                stopped=state.deployment not in active,
                received=received.get(record.node, {}),
            )
        )
    return wire.DeviceDetail(
        device=device_info(
            record, attached, point=api.is_point(record.node, call.now), resting=api.resting()
        ),
        machine=record.machine,
        revision_known=record.revision_known,
        metadata=dict(record.metadata_versions),
        swarms=list(record.swarms),
        deployments=said,
        woken=[
            wire.WayInfo(way=way, tried=known.tried, reached=known.reached, delay_ms=known.delay_ms)
            for way, known in api.service.plane.waker.ways(record.node).items()
        ],
        clones=[wire.CloneInfo(at=clone.at, host=clone.host, reason=clone.reason) for clone in clones],
    )


async def move_device(api: Api, call: Call[wire.MoveDevice]) -> wire.DeviceInfo:
    """Put a device into another group; it is told, and gets a certificate that says so."""
    group = parse_group(call.body.group)
    node = (await api.store.read(devices.resolve_device, call.path["id"])).node
    record = await api.change(call, "device.move", f"{node} to {group}", devices.move_device, node, group)
    await api.service.plane.device_changed(node)
    return device_info(record, api.attached(), point=api.is_point(node, call.now), resting=api.resting())


async def revoke_device(api: Api, call: Call[wire.RevokeDevice]) -> wire.DeviceInfo:
    """Take a device out of the fleet; its link ends at once."""
    found = await api.store.read(devices.resolve_device, call.path["id"])
    node = found.node
    if call.path["id"] not in (node, found.name) and len(call.path["id"]) < 8:
        raise UsageError(
            f"{call.path['id']!r} is too short to revoke a device by",
            hint=f"write its whole id, {node}, or at least eight characters",
        )
    record = await api.change(
        call, "device.revoke", node, devices.revoke_device, node, call.body.reason, call.now
    )
    await api.service.plane.device_changed(node)
    return device_info(record, api.attached(), point=api.is_point(node, call.now), resting=api.resting())


# Distribution points ---------------------------------------------------------------------------------


async def list_points(api: Api, call: Call[None]) -> wire.PointList:
    """Every distribution point with a signed grant, whether it is there or not."""
    known = await api.store.read(devices.find_devices, list(api.grants))
    attached = api.attached()
    carried = Counter(via for via in attached.values() if via is not None)
    calls = api.service.plane.callees.calls()
    points = []
    for grant in sorted(api.grants.values(), key=lambda grant: (grant.scope, grant.node)):
        record = known.get(grant.node)
        points.append(
            wire.PointInfo(
                node=grant.node,
                name=record.name if record else "",
                scope=grant.scope,
                duties=list(grant.duties),
                addresses=list(grant.addresses),
                expires=grant.expires,
                state="grant expired"
                if grant.expires <= call.now
                else "not enrolled"
                if record is None
                else "revoked"
                if record.revoked is not None
                else "online"
                if grant.node in attached
                else "offline",
                carries=carried[grant.node],
                disk_bytes=grant.disk_bytes,
                wan_bytes_per_s=grant.wan_bytes_per_s,
                dialled=grant.dialled,
                call=call_words(calls[grant.node]) if grant.node in calls else "",
                call_since=calls[grant.node].since if grant.node in calls else None,
            )
        )
    return wire.PointList(points=points)
