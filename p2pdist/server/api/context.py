"""What the handlers work with: the running service, its store, and views over both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from p2pdist.core.explanation import stage_shown
from p2pdist.core.scope import grant_valid, points_for
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath, InfoHash, NodeId, TargetPath
from p2pdist.net.link import Call as LinkCall
from p2pdist.server.api.table import Call
from p2pdist.server.service import Service
from p2pdist.server.sessions import SessionDesk
from p2pdist.store import incidents
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import DeviceDeploymentRecord, DeviceRecord
from p2pdist.trust.catalog import Catalog, Release, SeedGrant
from p2pdist.wire.api import DeviceDeployment, DeviceInfo

P = ParamSpec("P")
R = TypeVar("R")


class Api:
    """One per server.

    Attributes:
        service: The running server.
        store: Its store.
        uploads: Content on its way in.
        sessions: Operators' sessions with devices.
        tasks: What nodes are given to do.
        addresses: Where devices dial the server.
        started: When it started, Unix seconds.
    """

    def __init__(self, service: Service, *, addresses: Iterable[str], started: int) -> None:
        self.service = service
        self.store: FleetStore = service.store
        self.uploads = service.uploads
        self.sessions = SessionDesk(service.plane.tell, service.plane.reach.link)
        self.tasks = service.tasks
        self.addresses = tuple(addresses)
        self.started = started

    @property
    def catalog(self) -> Catalog | None:
        """What is signed and published; None before the first publication."""
        return self.service.catalog

    @property
    def releases(self) -> Mapping[TargetPath, Release]:
        """Every signed release."""
        return self.catalog.releases if self.catalog is not None else {}

    @property
    def grants(self) -> Mapping[NodeId, SeedGrant]:
        """Every signed seed grant, expired ones included."""
        return self.catalog.grants if self.catalog is not None else {}

    async def change(
        self,
        call: Call[Any],
        action: str,
        subject: str,
        query: Callable[Concatenate[sa.Connection, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run *query* and write it down in the audit log, in one transaction."""

        def both(connection: sa.Connection) -> R:
            result = query(connection, *args, **kwargs)
            incidents.add_audit(connection, at=call.now, actor=call.actor, action=action, subject=subject)
            return result

        return await self.store.write(both)

    async def note(self, call: Call[Any], action: str, subject: str, detail: str = "") -> None:
        """Write something down in the audit log that did not happen in the store."""
        await self.store.write(
            incidents.add_audit, at=call.now, actor=call.actor, action=action, subject=subject, detail=detail
        )

    def is_point(self, node: NodeId, now: int) -> bool:
        """Whether a valid grant makes *node* a distribution point."""
        return grant_valid(self.grants.get(node), "seed", now)

    def points_of(self, group: GroupPath, now: int) -> tuple[SeedGrant, ...]:
        """The distribution points that serve a group."""
        return points_for(group, self.grants.values(), now)

    def attached(self) -> Mapping[NodeId, NodeId | None]:
        """Every node that can be reached now, and who carries it."""
        return self.service.plane.attached()

    def resolve_release(self, text: str) -> Release:
        """Find the release that an operator means: a target path, or ``product@version``.

        Raises:
            UsageError: there is none, or more than one.
        """
        exact = self.releases.get(TargetPath(text))
        if exact is not None:
            return exact
        product, at, version = text.rpartition("@")
        found = [r for r in self.releases.values() if at and (r.product, r.version) == (product, version)]
        if len(found) == 1:
            return found[0]
        if not found:
            raise UsageError(
                f"no signed release is {text[:120]!r}", hint="p2pdist release list shows those that are"
            )
        named = ", ".join(sorted(release.target for release in found))
        raise UsageError(f"{text[:120]!r} could be {named}", hint="write the whole target path")

    def problem_of(self, release: Release) -> str:
        """Why the server cannot serve a release's content; empty when it can."""
        return self.service.origin.damaged.get(InfoHash(release.info_hash), "")


def device_info(record: DeviceRecord, attached: Mapping[NodeId, NodeId | None], *, point: bool) -> DeviceInfo:
    """A device as the API shows it."""
    online = record.node in attached
    return DeviceInfo(
        node=record.node,
        name=record.name,
        group=record.group_path,
        role="point" if point else "device",
        state="revoked" if record.revoked is not None else "online" if online else "offline",
        via=(attached[record.node] or "") if online else record.via,
        platform=record.platform,
        program=record.program,
        enrolled=record.enrolled,
        last_seen=record.last_seen,
        certificate_expires=record.certificate_expires,
        disk_free_bytes=record.disk_free_bytes,
        installed=dict(record.installed),
        clones=record.clones,
        revoked_reason=record.revoked_reason,
    )


def device_deployment(
    said: DeviceDeploymentRecord | None,
    *,
    deployment: str,
    target: str,
    device: DeviceRecord,
    online: bool,
    stopped: bool,
    received: Mapping[str, int],
) -> DeviceDeployment:
    """How far a device is; *said* is None when it has said nothing yet, *stopped* when it is not to go on."""
    pending = said is not None and not stopped and said.retry_wanted > said.retry
    return DeviceDeployment(
        deployment=deployment,
        target=target,
        node=device.node,
        name=device.name,
        online=online,
        stage=stage_shown(said.stage, stopped=stopped) if said else "unheard",
        fraction=said.fraction if said else 0.0,
        rate_bytes_per_s=said.rate_bytes_per_s if said else 0,
        sources=said.sources if said else 0,
        received=dict(received),
        reason=said.reason if said else "it has not answered yet" if online else "it is offline",
        exit_code=said.exit_code if said else None,
        output=said.output.decode("utf-8", "replace") if said else "",
        seconds=said.seconds if said else 0.0,
        updated=said.updated if said else None,
        retry_pending=pending,
    )


def call_words(call: LinkCall) -> str:
    """Say how it goes with a point that the admin server dials."""
    match call.state:
        case "linked":
            return "dialled from here"
        case "carried by another":
            return "dialled; linked otherwise"
        case "in reserve":
            return f"dialled; in reserve: {call.reason}"
        case "failed":
            return f"cannot be dialled: {call.reason}"
        case "dialling":
            return "being dialled" + (f": {call.reason}" if call.reason else "")
