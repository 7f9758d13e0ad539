"""Handlers: the fleet at a glance, refusals, the audit log, the enrolment bundle."""

from __future__ import annotations

import shutil

import trio

import p2pdist
from p2pdist import limits
from p2pdist.errors import P2PDistError, UsageError
from p2pdist.ids import NodeId
from p2pdist.server.api.context import Api
from p2pdist.server.api.table import Call
from p2pdist.store import content, deployments, devices, incidents
from p2pdist.store.records import ArtifactRecord
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.wire import api as wire

_EXPIRES_SOON_S = 21 * 24 * 3600  # people are to meet, sign and publish before
_SEEN_S = 15 * 60


async def health(api: Api, call: Call[None]) -> wire.Health:
    """Whether the server answers and its database can be read."""
    try:
        await api.store.read(incidents.count_refusals)
    except P2PDistError as error:
        return wire.Health(status="impaired", store=str(error), version=p2pdist.__version__)
    return wire.Health(status="ok", store="ok", version=p2pdist.__version__)


async def status(api: Api, call: Call[None]) -> wire.Status:
    """The fleet at a glance, and what is wrong with it."""
    enrolled, _, revoked = await api.store.read(devices.count_devices, seen_since=call.now - _SEEN_S)
    stored = await api.store.read(content.list_artifacts)
    attached = api.attached()
    points = [node for node in api.grants if api.is_point(node, call.now)]
    beside = await api.store.read(content.bytes_beside)
    usage = await trio.to_thread.run_sync(shutil.disk_usage, api.service.home.root)
    return wire.Status(
        fleet=api.service.home.fleet,
        node=api.service.home.key.node,
        version=p2pdist.__version__,
        started=api.started,
        addresses=list(api.addresses),
        devices=enrolled,
        devices_online=len(attached),
        devices_revoked=revoked,
        points=len(points),
        points_online=sum(node in attached for node in points),
        releases=len(api.releases),
        deployments_active=len(await api.store.read(deployments.list_deployments, active=True)),
        refusals=await api.store.read(incidents.count_refusals),
        metadata_expires=api.service.people_expire,
        received={
            receiver: dict(by_role)
            for receiver, by_role in (await api.store.read(content.bytes_by_source)).items()
        },
        unattributed={receiver: summed.unattributed for receiver, summed in beside.items()},
        wasted={receiver: summed.wasted for receiver, summed in beside.items()},
        origin_sent_bytes=sum(record.sent_bytes for record in stored.values()) + api.service.unsaved_sent(),
        disk_free_bytes=usage.free,
        withdrawn_bytes=await api.service.withdrawn.stored_bytes(),
        problems=_problems(api, call.now, usage.free, list(stored.values())),
    )


def _problems(api: Api, now: int, disk_free: int, stored: list[ArtifactRecord]) -> list[str]:
    problems = []
    catalog, expires = api.catalog, api.service.people_expire
    if catalog is None:
        problems.append("nothing is published yet: p2pdist publish DIR")
    else:
        if catalog.expires <= now:
            problems.append("signed metadata has expired: devices refuse it; sign and publish it again")
        elif expires is not None and expires - now < _EXPIRES_SOON_S:
            left = _in_words(expires - now)
            problems.append(f"what people signed expires in {left}: p2pdist-sign renew, sign, publish")
        problems += [f"{what} is signed but left out: {why}" for what, why in catalog.left_out.items()]
        for grant in catalog.grants.values():
            if grant.expires <= now:
                problems.append(f"the seed grant of {grant.node} for {grant.scope} has expired")
            elif grant.expires - now < _EXPIRES_SOON_S:
                problems.append(
                    f"the seed grant of {grant.node} for {grant.scope} expires in"
                    f" {_in_words(grant.expires - now)}: p2pdist-sign grant it again, sign, publish"
                )
    problems += [
        f"the point {node} cannot be dialled: {call.reason}" + (f"; {call.hint}" if call.hint else "")
        for node, call in api.service.plane.callees.calls().items()
        if call.state == "failed"
    ]
    problems += [
        f"the content of {info_hash[:12]} is not served: {reason}"
        for info_hash, reason in api.service.origin.damaged.items()
    ]
    if disk_free < limits.DISK_RESERVE_BYTES:
        problems.append(f"the disk is full: {disk_free} bytes are free; uploads and reports wait")
    if api.service.trouble:
        problems.append(f"metadata cannot be kept current: {api.service.trouble}")
    return problems


def _in_words(seconds: int) -> str:
    days, hours = seconds // 86_400, seconds // 3_600
    return f"{days} days" if days > 1 else f"{hours} hours"


async def list_refusals(api: Api, call: Call[None]) -> wire.RefusalList:
    """What nodes refused for want of trust, newest first."""
    rows_max = call.query_int("limit", 100, at_most=limits.API_ROWS_MAX)
    after = call.query_int("after", 0, at_most=2**53)
    found = await api.store.read(incidents.list_refusals, rows_max=rows_max, after=after)
    known = await api.store.read(devices.find_devices, sorted({refusal.node for refusal in found}))
    names = {node: record.name for node, record in known.items()}
    names[NodeId(api.service.home.key.node)] = "admin server"
    return wire.RefusalList(
        refusals=[
            wire.RefusalInfo(
                number=refusal.number,
                node=refusal.node,
                name=names.get(refusal.node, ""),
                kind=refusal.kind,
                subject=refusal.subject,
                reason=refusal.reason,
                at=refusal.at,
                times=refusal.times,
            )
            for refusal in found
        ]
    )


async def list_audit(api: Api, call: Call[None]) -> wire.AuditList:
    """Who did what, newest first."""
    rows_max = call.query_int("limit", 100, at_most=limits.API_ROWS_MAX)
    return wire.AuditList(
        entries=[
            wire.AuditInfo(
                at=entry.at,
                actor=entry.actor,
                action=entry.action,
                subject=entry.subject,
                detail=entry.detail,
            )
            for entry in await api.store.read(incidents.list_audit, rows_max=rows_max)
        ]
    )


async def enrolment(api: Api, call: Call[None]) -> bytes:
    """The enrolment bundle: with a token, it makes a machine a member of the fleet."""
    home = api.service.home
    if not api.addresses:
        raise UsageError("the server does not know its own addresses", hint="set link.addresses")
    return EnrolmentBundle(
        fleet=home.fleet,
        ca_pem=home.authority.certificate_pem,
        root=home.trusted_root,
        server_node=home.key.node,
        server_public=home.key.public,
        addresses=api.addresses,
    ).encode()
