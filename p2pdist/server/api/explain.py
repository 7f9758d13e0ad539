"""Handler: where a node gets a release's content from, and why from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from p2pdist import limits
from p2pdist.core.desired import Order, Wishes, wishes_for
from p2pdist.core.explanation import (
    Asked,
    Explained,
    KnownPoint,
    explain_sources,
    presumed_site,
    stage_of,
)
from p2pdist.core.mirrors import account_of, server_of
from p2pdist.core.places import Place
from p2pdist.core.scope import covers
from p2pdist.ids import InfoHash, NodeId
from p2pdist.server.api.context import Api
from p2pdist.server.api.table import Call
from p2pdist.store import content, deployments, devices, incidents
from p2pdist.store.records import (
    ContentReportRecord,
    ContentSourceRecord,
    DeviceDeploymentRecord,
    DeviceRecord,
)
from p2pdist.trust.catalog import Delta, Release
from p2pdist.wire import api as wire
from p2pdist.wire.messages import SourceBytes

_REFUSALS_MAX = 5


class _Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the store and the running server say of one device and one release."""

    device: DeviceRecord
    release: Release
    report: ContentReportRecord | None
    counted: list[ContentSourceRecord]
    deltas: list[tuple[Delta, ContentReportRecord]]
    said: DeviceDeploymentRecord | None
    orders: list[Order]
    wishes: Wishes
    point: bool


async def explain(api: Api, call: Call[None]) -> wire.Explanation:
    """Where a device gets a release from: every candidate, the decision, and the bytes."""
    device = await api.store.read(devices.resolve_device, call.query.get("device", ""))
    known = await _gather(api, device, api.resolve_release(call.query.get("target", "")), call.now)
    release, report, said = known.release, known.report, known.said
    held = report.held if report is not None else 0
    stage = stage_of(
        said.stage if said is not None else None,
        stopped=said is not None and said.deployment not in {d.id for d in known.wishes.deployments},
        point=known.point,
        held=held,
        length=release.length,
    )
    fraction = said.fraction if said is not None else held / max(1, release.length) if known.point else 0.0
    reason = said.reason if said is not None else ""
    if said is not None and stage == "stopped":
        reason = f"it was {said.stage} when its deployment left it"
    sources, names = await _sources(api, known, call.now)
    notes = _points_notes(api, known, names, call.now) + _notes(api, known)
    notes += await _refused(api, known, names)
    if len(sources) > limits.CANDIDATES_MAX:
        notes.append(f"{len(sources) - limits.CANDIDATES_MAX} more sources are left out")
    return wire.Explanation(
        node=device.node,
        name=device.name,
        group=device.group_path,
        target=release.target,
        info_hash=release.info_hash,
        stage=stage,
        fraction=fraction,
        reason=reason,
        reported=report.updated if report is not None else None,
        length=release.length,
        held=held,
        unattributed=report.unattributed if report is not None else 0,
        wasted=report.wasted if report is not None else 0,
        sources=[
            wire.ExplainedSource(name=names.get(source.node, ""), **msgspec.structs.asdict(source))
            for source in sources[: limits.CANDIDATES_MAX]
        ],
        notes=notes,
    )


async def _gather(api: Api, device: DeviceRecord, release: Release, now: int) -> _Known:
    report, counted = await api.store.read(content.find_content, device.node, InfoHash(release.info_hash))
    deltas = []
    for delta in release.deltas:
        of_delta, more = await api.store.read(content.find_content, device.node, InfoHash(delta.info_hash))
        if of_delta is not None:
            deltas.append((delta, of_delta))
            counted = _added(counted, more)
    history = await api.store.read(deployments.device_history, device.node)
    orders = await api.store.read(deployments.active_orders)
    point = api.is_point(device.node, now)
    active = {order.id for order in orders}
    said = [state for state in history if state.target == release.target]
    said.sort(key=lambda state: state.deployment not in active)
    return _Known(
        device=device,
        release=release,
        report=report if report is not None or not deltas else deltas[0][1],
        counted=counted,
        deltas=deltas,
        said=said[0] if said else None,
        orders=orders,
        wishes=wishes_for(
            fleet=api.service.home.fleet,
            node=device.node,
            group=device.group_path,
            platform=device.platform,
            grant=api.grants.get(device.node) if point else None,
            orders=orders,
            releases=api.releases,
            scopes={other.scope for node, other in api.grants.items() if api.is_point(node, now)},
        ),
        point=point,
    )


def _added(
    counted: Sequence[ContentSourceRecord], more: Sequence[ContentSourceRecord]
) -> list[ContentSourceRecord]:
    """Add the bytes of a delta to those of the artifact, source by source."""
    found = {each.source: each for each in counted}
    for each in more:
        known = found.get(each.source)
        found[each.source] = (
            each
            if known is None
            else msgspec.structs.replace(
                known, received=known.received + each.received, sent=known.sent + each.sent
            )
        )
    return list(found.values())


async def _sources(api: Api, known: _Known, now: int) -> tuple[Sequence[Explained], dict[NodeId, str]]:
    """Every source with the decision on it, and what people call the nodes among them."""
    device, report, attached = known.device, known.report, api.attached()
    reported = report.candidates if report is not None else None
    named = {NodeId(c.node) for c in reported or ()} | {NodeId(s.source) for s in known.counted}
    records = await api.store.read(devices.find_devices, sorted(named | set(api.grants)))
    names = {node: record.name for node, record in records.items()}
    names |= {account_of(mirror.url): server_of(mirror.url) for mirror in known.release.mirrors}
    names[api.service.home.key.node] = "admin server"
    online = device.node in attached
    asked = Asked(
        receiver=Place(
            node=device.node,
            role="point" if known.point else "device",
            site=presumed_site(
                device.node,
                device.group_path,
                tuple(api.grants.values()),
                carrier=(attached[device.node] or "") if online else device.via,
                direct=online,
                now=now,
            ),
        ),
        group=device.group_path,
        origin=api.service.home.key.node,
        points=[
            KnownPoint(grant=grant, online=node in attached)
            for node, grant in sorted(api.grants.items())
            if node in records and records[node].revoked is None
        ],
        reported=reported,
        mirrored=known.release.info_hash in api.service.origin.mirrored,
        counted=[
            msgspec.convert(
                {"node": s.source, "role": s.role, "received": s.received, "sent": s.sent}, SourceBytes
            )
            for s in known.counted
        ],
    )
    return explain_sources(asked, name_of=lambda node: names.get(node) or node[:12], now=now), names


async def _refused(api: Api, known: _Known, names: Mapping[NodeId, str]) -> list[str]:
    """What content of this release the node has refused, the newest first."""
    listed = await api.store.read(
        incidents.list_refusals, rows_max=limits.API_ROWS_MAX, node=known.device.node
    )
    found = [r for r in listed if r.kind == "content" and known.release.target in r.subject]
    notes = [f"it refused {refusal.subject}: {refusal.reason}" for refusal in found[:_REFUSALS_MAX]]
    for node, name in names.items():
        notes = [note.replace(node, name) for note in notes]
    return notes


def _points_notes(api: Api, known: _Known, names: Mapping[NodeId, str], now: int) -> list[str]:
    if known.point:
        scope = api.grants[known.device.node].scope
        return [f"it is a distribution point for {scope}: it fetches over the WAN, once for all of it"]
    group = known.device.group_path
    points = api.points_of(group, now)
    if not points:
        return [f"no distribution point serves {group}: the origin is the only other source"]
    listed = ", ".join(
        f"{names.get(grant.node) or grant.node[:12]} (scope {grant.scope})" for grant in points
    )
    return [
        f"the distribution points of {group} are {listed}",
        "devices of other sites are not listed: over the WAN only distribution points exchange content",
    ]


def _notes(api: Api, known: _Known) -> list[str]:
    """What else explains the sources, or their absence, in sentences."""
    device, release = known.device, known.release
    notes = [
        f"a delta of {delta.length} bytes stands for the artifact's {release.length};"
        f" {report.held} bytes of it are on the device"
        for delta, report in known.deltas
    ]
    wanted = {wish.target for wish in known.wishes.deployments}
    reading = api.service.plane.directory.reading(api.releases).get(device.node, ())
    if release in reading:
        notes.append("a task has it read this release from the vendor's mirrors now")
    elif release.target not in wanted and release.target not in known.wishes.prefetch:
        if any(o.target == release.target and covers(o.group, device.group_path) for o in known.orders):
            notes.append("a newer deployment of the same product has taken its place on this device")
        elif known.said is not None:
            notes.append(f"its deployment {known.said.deployment} was stopped, or no longer reaches it")
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
    if known.report is None:
        notes.append(
            "the device has not reported its sources for this release yet: this is what the rules say"
        )
    return notes
