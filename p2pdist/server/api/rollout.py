"""Handlers: deployments, and the explanation of where a device's content comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from p2pdist.core.desired import Order, wishes_for
from p2pdist.core.scope import covers
from p2pdist.ids import InfoHash, NodeId, parse_group
from p2pdist.server.api.context import Api, device_deployment
from p2pdist.server.api.table import Call
from p2pdist.server.tokens import token_id
from p2pdist.store import content, deployments, devices
from p2pdist.store.records import ContentSourceRecord, DeploymentRecord, DeviceRecord
from p2pdist.trust.catalog import Release
from p2pdist.wire import api as wire
from p2pdist.wire.frames import Candidate

_ENDED = ("installed", "failed", "refused")


async def list_deployments(api: Api, call: Call[None]) -> wire.DeploymentList:
    """Every deployment, newest first."""
    found = await api.store.read(deployments.list_deployments)
    stages = await api.store.read(deployments.stages_by_deployment)
    members = await api.store.read(devices.list_devices, revoked=False)
    return wire.DeploymentList(
        deployments=[_info(record, stages.get(record.id, {}), _reached(record, members)) for record in found]
    )


async def add_deployment(api: Api, call: Call[wire.NewDeployment]) -> wire.DeploymentInfo:
    """Order a release onto a group; every device in it is told at once."""
    group = parse_group(call.body.group)
    release = api.resolve_release(call.body.target)
    record = await api.change(
        call,
        "deployment.add",
        f"{release.target} onto {group}",
        deployments.add_deployment,
        token_id(),
        release.target,
        group,
        call.actor,
        call.now,
    )
    await api.service.plane.orders_changed()
    members = await api.store.read(devices.list_devices, group=group, revoked=False)
    return _info(record, {}, members)


async def show_deployment(api: Api, call: Call[None]) -> wire.DeploymentDetail:
    """A deployment with how far each of its devices is."""
    record = await api.store.read(deployments.find_deployment, call.path["id"])
    said = {state.node: state for state in await api.store.read(deployments.deployment_devices, record.id)}
    members = await api.store.read(devices.list_devices, group=record.group_path, revoked=False)
    received = await api.store.read(content.sources_by_target, record.target)
    elsewhere = await api.store.read(
        devices.find_devices, [node for node in said if node not in {m.node for m in members}]
    )
    attached = api.attached()
    states = [
        device_deployment(
            said.get(device.node),
            deployment=record.id,
            target=record.target,
            device=device,
            online=device.node in attached,
            received=received.get(device.node, {}),
        )
        for device in [*members, *elsewhere.values()]
    ]
    reached = [state.stage for state in states if state.node not in elsewhere]
    counted = Counter(stage for stage in reached if stage != "unheard")
    finished = all(stage in _ENDED for stage in reached)
    return wire.DeploymentDetail(
        deployment=_info(record, counted, members), finished=finished, devices=states
    )


async def stop_deployment(api: Api, call: Call[None]) -> wire.DeploymentInfo:
    """Stop a deployment: devices that have not begun leave it."""
    chosen = call.path["id"]
    record = await api.change(call, "deployment.stop", chosen, deployments.stop_deployment, chosen, call.now)
    await api.service.plane.orders_changed()
    stages = await api.store.read(deployments.stages_by_deployment)
    members = await api.store.read(devices.list_devices, group=record.group_path, revoked=False)
    return _info(record, stages.get(record.id, {}), members)


async def explain(api: Api, call: Call[None]) -> wire.Explanation:
    """Where a device gets a release from: every candidate, the decision, and the bytes."""
    device = await api.store.read(devices.resolve_device, call.query.get("device", ""))
    release = api.resolve_release(call.query.get("target", ""))
    report, counted = await api.store.read(content.find_content, device.node, InfoHash(release.info_hash))
    history = await api.store.read(deployments.device_history, device.node)
    stage = next((state.stage for state in history if state.target == release.target), "not begun")
    orders = await api.store.read(deployments.active_orders)
    candidates = report.candidates if report is not None else ()
    by_node = {source.source: source for source in counted}
    named = sorted({c.node for c in candidates} | set(by_node))
    known = await api.store.read(devices.find_devices, [NodeId(node) for node in named])
    names = {node: record.name for node, record in known.items()}
    names[api.service.home.key.node] = "admin server"
    sources = [_source(candidate, by_node.get(NodeId(candidate.node)), names) for candidate in candidates]
    listed = {candidate.node for candidate in candidates}
    sources += [_unlisted(source, names) for source in counted if source.source not in listed]
    sources.sort(key=lambda source: (not source.taken, -source.received, source.role, source.node))
    return wire.Explanation(
        node=device.node,
        name=device.name,
        group=device.group_path,
        target=release.target,
        info_hash=release.info_hash,
        stage=stage,
        reported=report.updated if report is not None else None,
        sources=sources,
        notes=_notes(api, device, release, orders, reported=report is not None, now=call.now),
    )


def _source(
    candidate: Candidate, counted: ContentSourceRecord | None, names: Mapping[NodeId, str]
) -> wire.ExplainedSource:
    return wire.ExplainedSource(
        node=candidate.node,
        name=names.get(NodeId(candidate.node), ""),
        role=candidate.role,
        address=f"{candidate.host}:{candidate.port}",
        taken=candidate.taken,
        reason=candidate.reason,
        received=counted.received if counted else 0,
        sent=counted.sent if counted else 0,
    )


def _unlisted(counted: ContentSourceRecord, names: Mapping[NodeId, str]) -> wire.ExplainedSource:
    """A node that bytes were exchanged with, and which is no candidate now."""
    return wire.ExplainedSource(
        node=counted.source,
        name=names.get(NodeId(counted.source), ""),
        role=counted.role,
        address="",
        taken=counted.received > 0,
        reason="it dialled this node, or was a candidate before",
        received=counted.received,
        sent=counted.sent,
    )


def _notes(
    api: Api, device: DeviceRecord, release: Release, orders: list[Order], *, reported: bool, now: int
) -> list[str]:
    """What explains the sources, or their absence, in sentences."""
    notes = []
    points = api.points_of(device.group_path, now)
    if points:
        listed = ", ".join(f"{grant.node[:12]} (scope {grant.scope})" for grant in points)
        notes.append(f"the distribution points of {device.group_path} are {listed}")
    else:
        notes.append(f"no distribution point serves {device.group_path}: the origin is the only other source")
    grant = api.grants.get(device.node)
    wishes = wishes_for(
        fleet=api.service.home.fleet,
        group=device.group_path,
        platform=device.platform,
        grant=grant if api.is_point(device.node, now) else None,
        orders=orders,
        releases=api.releases,
    )
    wanted = {wish.target for wish in wishes.deployments}
    if release.target not in wanted and release.target not in wishes.prefetch:
        reaching = [o for o in orders if o.target == release.target and covers(o.group, device.group_path)]
        if reaching:
            notes.append("a newer deployment of the same product has taken its place on this device")
        else:
            notes.append("no deployment puts this release onto this device")
    if device.revoked is not None:
        notes.append(f"the device was revoked: {device.revoked_reason}")
    elif device.node not in api.attached():
        notes.append("the device cannot be reached now; this is what it last reported")
    if not release.fits(device.platform):
        notes.append(f"the release is for {release.platform}, and the device is {device.platform}")
    problem = api.problem_of(release)
    if problem:
        notes.append(f"the admin server does not serve it: {problem}")
    if not reported:
        notes.append("the device has not reported its sources for this release yet")
    return notes


def _info(
    record: DeploymentRecord, stages: Mapping[str, int], members: list[DeviceRecord]
) -> wire.DeploymentInfo:
    unheard = len(members) - sum(stages.values())
    return wire.DeploymentInfo(
        id=record.id,
        target=record.target,
        group=record.group_path,
        created=record.created,
        created_by=record.created_by,
        stopped=record.stopped,
        devices=len(members),
        stages={**stages, **({"unheard": unheard} if unheard > 0 else {})},
    )


def _reached(record: DeploymentRecord, members: list[DeviceRecord]) -> list[DeviceRecord]:
    return [device for device in members if covers(record.group_path, device.group_path)]
