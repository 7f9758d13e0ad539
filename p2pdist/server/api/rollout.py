"""Handlers: deployments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache

from p2pdist.core.desired import orders_for
from p2pdist.core.explanation import stage_shown
from p2pdist.core.scope import covers
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath, NodeId, parse_group
from p2pdist.server.api.context import Api, device_deployment
from p2pdist.server.api.table import Call
from p2pdist.server.tokens import token_id
from p2pdist.store import content, deployments, devices
from p2pdist.store.records import DeploymentRecord, DeviceRecord
from p2pdist.wire import api as wire

_BAD = ("failed", "refused")
_ENDED = ("installed", *_BAD)


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
    finished = all(state.stage in _ENDED and not state.retry_pending for state in states[: len(members)])
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


async def retry_deployment(api: Api, call: Call[wire.RetryDeployment]) -> wire.RetriedDeployment:
    """Try again on the devices that failed or refused; those that are off are told when they are back."""
    record = await api.store.read(deployments.find_deployment, call.path["id"])
    named = [await api.store.read(devices.resolve_device, name) for name in call.body.devices]
    members = await api.store.read(devices.list_devices, group=record.group_path, revoked=False)
    counts = await _counts_for(api, record)
    reached = [device for device in members if counts(device)]
    if named and record.stopped is None:
        said = {s.node: s.stage for s in await api.store.read(deployments.deployment_devices, record.id)}
        _check_named(record, named, {device.node for device in reached}, said)
    again = await api.change(
        call,
        "deployment.retry",
        f"{record.id} on {', '.join(device.name for device in named) or 'all that failed'}",
        deployments.retry_deployment,
        record.id,
        [device.node for device in named or reached],
    )
    await api.service.plane.orders_changed()
    stages = await api.store.read(deployments.stages_by_deployment)
    return wire.RetriedDeployment(
        deployment=_info(record, stages.get(record.id, {}), members), devices=[str(node) for node in again]
    )


async def _counts_for(api: Api, record: DeploymentRecord) -> Callable[[DeviceRecord], bool]:
    """Return what says whether the deployment counts for a device: a newer one may have taken its place."""
    orders = await api.store.read(deployments.active_orders)

    @cache
    def counts(group: GroupPath, platform: str) -> bool:
        found = orders_for(group=group, platform=platform, orders=orders, releases=api.releases)
        return record.id in {order.id for order in found}

    return lambda device: counts(device.group_path, device.platform)


def _check_named(
    record: DeploymentRecord,
    named: Iterable[DeviceRecord],
    reached: Collection[NodeId],
    said: Mapping[NodeId, str],
) -> None:
    for device in named:
        if device.node not in reached:
            raise UsageError(
                f"deployment {record.id} does not count for {device.name}",
                hint=f"p2pdist device show {device.node[:8]} says where it is and what it is to have",
            )
        if said.get(device.node) not in _BAD:
            raise UsageError(
                f"deployment {record.id} has not failed on {device.name}",
                hint=f"p2pdist deployment show {record.id} says how far it is",
            )


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
