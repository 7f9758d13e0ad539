"""Handlers: deployments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from p2pdist.core.explanation import stage_shown
from p2pdist.core.scope import covers
from p2pdist.ids import parse_group
from p2pdist.server.api.context import Api, device_deployment
from p2pdist.server.api.table import Call
from p2pdist.server.tokens import token_id
from p2pdist.store import content, deployments, devices
from p2pdist.store.records import DeploymentRecord, DeviceRecord
from p2pdist.wire import api as wire

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
            stopped=record.stopped is not None,
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


def _info(
    record: DeploymentRecord, stages: Mapping[str, int], members: list[DeviceRecord]
) -> wire.DeploymentInfo:
    shown: Counter[str] = Counter()
    for stage, count in stages.items():
        shown[stage_shown(stage, stopped=record.stopped is not None)] += count
    unheard = len(members) - shown.total()
    return wire.DeploymentInfo(
        id=record.id,
        target=record.target,
        group=record.group_path,
        created=record.created,
        created_by=record.created_by,
        stopped=record.stopped,
        devices=len(members),
        stages={**shown, **({"unheard": unheard} if unheard > 0 else {})},
    )


def _reached(record: DeploymentRecord, members: list[DeviceRecord]) -> list[DeviceRecord]:
    return [device for device in members if covers(record.group_path, device.group_path)]
