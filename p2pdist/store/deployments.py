"""What is ordered onto which groups, and how far each device is with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from p2pdist import limits
from p2pdist.core.desired import Order
from p2pdist.core.scope import covers
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath, NodeId, TargetPath
from p2pdist.store.groups import require_group
from p2pdist.store.records import DeploymentRecord, DeviceDeploymentRecord, record_of
from p2pdist.store.sql import clamp, clean, in_chunks, upsert
from p2pdist.store.tables import deployments, device_deployments, devices
from p2pdist.wire.messages import Progress, Report


def add_deployment(
    connection: sa.Connection, deployment_id: str, target: TargetPath, group: GroupPath, by: str, now: int
) -> DeploymentRecord:
    """Order *target* onto *group*. An order of the same that has not been stopped is returned as it is.

    Raises:
        UsageError: there is no such group.
    """
    require_group(connection, group)
    query = sa.select(deployments).where(
        deployments.c.target == target, deployments.c.group_path == group, deployments.c.stopped.is_(None)
    )
    row = connection.execute(query).mappings().first()
    newest = connection.execute(
        sa.select(sa.func.max(deployments.c.number)).where(deployments.c.stopped.is_(None))
    ).scalar()
    if row is not None and row["number"] == newest:
        return record_of(row, DeploymentRecord)
    connection.execute(
        deployments.insert().values(
            id=deployment_id, target=target, group_path=group, created=now, created_by=by
        )
    )
    return find_deployment(connection, deployment_id)


def find_deployment(connection: sa.Connection, deployment_id: str) -> DeploymentRecord:
    """Return one deployment. Raises UsageError if there is none with this id."""
    query = sa.select(deployments).where(deployments.c.id == deployment_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise UsageError(
            f"there is no deployment {deployment_id[:64]}", hint="p2pdist deployment list shows them"
        )
    return record_of(row, DeploymentRecord)


def list_deployments(connection: sa.Connection, *, active: bool = False) -> list[DeploymentRecord]:
    """Return the deployments, newest first; with *active* only those that have not been stopped."""
    query = sa.select(deployments).order_by(deployments.c.number.desc())
    if active:
        query = query.where(deployments.c.stopped.is_(None))
    return [record_of(row, DeploymentRecord) for row in connection.execute(query).mappings()]


def active_orders(connection: sa.Connection) -> list[Order]:
    """Return what has not been stopped, as the decisions in :mod:`p2pdist.core.desired` take it."""
    retries = _retries(connection)
    return [
        Order(
            id=record.id,
            target=record.target,
            group=record.group_path,
            number=record.number,
            retries=retries.get(record.id, {}),
        )
        for record in list_deployments(connection, active=True)
    ]


def stop_deployment(connection: sa.Connection, deployment_id: str, now: int) -> DeploymentRecord:
    """Stop a deployment: devices that have not begun leave it. Stopping it again changes nothing."""
    connection.execute(
        sa.update(deployments)
        .where(deployments.c.id == deployment_id, deployments.c.stopped.is_(None))
        .values(stopped=now)
    )
    return find_deployment(connection, deployment_id)


def retry_deployment(connection: sa.Connection, deployment_id: str, nodes: Iterable[NodeId]) -> list[NodeId]:
    """Ask for another try on those of *nodes* that failed or refused; return these.

    Asking again before a device has said anything of that try changes nothing.

    Raises:
        UsageError: there is no such deployment, or it has been stopped.
    """
    if find_deployment(connection, deployment_id).stopped is not None:
        raise UsageError(
            f"deployment {deployment_id[:64]} has been stopped",
            hint="order the release again: p2pdist deploy",
        )
    table = device_deployments
    again: list[NodeId] = []
    for chunk in in_chunks(sorted(nodes)):
        failed = sa.and_(
            table.c.deployment == deployment_id,
            table.c.node.in_(chunk),
            table.c.stage.in_(("failed", "refused")),
            table.c.retry < limits.RETRIES_MAX,
        )
        again += connection.execute(sa.select(table.c.node).where(failed).order_by(table.c.node)).scalars()
        connection.execute(sa.update(table).where(failed).values(retry_wanted=table.c.retry + 1))
    return again


def deployment_devices(connection: sa.Connection, deployment_id: str) -> list[DeviceDeploymentRecord]:
    """Return how far every device is that has said something about a deployment."""
    query = (
        sa.select(device_deployments)
        .where(device_deployments.c.deployment == deployment_id)
        .order_by(device_deployments.c.node)
    )
    return [record_of(row, DeviceDeploymentRecord) for row in connection.execute(query).mappings()]


def device_history(connection: sa.Connection, node: NodeId) -> list[DeviceDeploymentRecord]:
    """Return what one device has said about its deployments, newest first."""
    query = (
        sa.select(device_deployments)
        .where(device_deployments.c.node == node)
        .order_by(device_deployments.c.updated.desc())
    )
    return [record_of(row, DeviceDeploymentRecord) for row in connection.execute(query).mappings()]


def stages_by_deployment(connection: sa.Connection) -> dict[str, dict[str, int]]:
    """Return, for each deployment, how many of the devices that it reaches now are in which stage."""
    table = device_deployments
    query = (
        sa.select(
            table.c.deployment, deployments.c.group_path, table.c.stage, devices.c.group_path, sa.func.count()
        )
        .join(devices, devices.c.node == table.c.node)
        .join(deployments, deployments.c.id == table.c.deployment)
        .where(devices.c.revoked.is_(None))
        .group_by(table.c.deployment, deployments.c.group_path, table.c.stage, devices.c.group_path)
    )
    counted: dict[str, dict[str, int]] = {}
    for deployment, ordered, stage, group, count in connection.execute(query):
        if covers(ordered, group):
            stages = counted.setdefault(deployment, {})
            stages[stage] = stages.get(stage, 0) + count
    return counted


def record_progress(connection: sa.Connection, items: Sequence[tuple[NodeId, Progress]], now: int) -> None:
    """Store how far devices are. What has ended with a report stays as the report says, until its next try.

    Progress on a deployment that is not known, and of a try before the newest, is left out.
    """
    newest = {(node, progress.deployment): progress for node, progress in items}
    known = _known(connection, (progress.deployment for _, progress in items))
    heard = _heard(connection, newest)
    rows = [
        {
            "deployment": progress.deployment,
            "node": node,
            "target": clean(progress.target),
            "stage": progress.stage,
            "fraction": progress.fraction,
            "rate_bytes_per_s": progress.rate_bytes_per_s,
            "sources": clamp(progress.sources),
            "reason": clean(progress.detail),
            "exit_code": None,
            "output": b"",
            "seconds": 0.0,
            "report": "",
            "started": now,
            "updated": now,
            "finished": None,
            "retry": progress.retry,
        }
        for (node, deployment), progress in newest.items()
        if deployment in known and _goes_on(heard.get((node, deployment), _UNHEARD), progress.retry)
    ]
    upsert(connection, device_deployments, rows, keep=("started",))


def record_reports(connection: sa.Connection, items: Sequence[tuple[NodeId, Report]], now: int) -> None:
    """Store how deployments ended on devices. A report that is there already, or a newer one, stays.

    Of two tries the later one is newer, whatever the device's clock said.
    """
    known = _known(connection, (report.deployment for _, report in items))
    latest: dict[tuple[NodeId, str], Report] = {}
    for node, report in items:
        older = latest.get((node, report.deployment))
        if report.deployment in known and (older is None or _end_of(older) <= _end_of(report)):
            latest[node, report.deployment] = report
    heard = _heard(connection, latest)
    rows = [
        {
            "deployment": report.deployment,
            "node": pair[0],
            "target": clean(report.target),
            "stage": report.stage,
            "fraction": 1.0 if report.stage == "installed" else 0.0,
            "rate_bytes_per_s": 0,
            "sources": 0,
            "reason": clean(report.reason),
            "exit_code": None if report.exit_code is None else clamp(report.exit_code),
            "output": report.output,
            "seconds": min(report.seconds, float(2**31)),
            "report": clean(report.id),
            "started": now,
            "updated": now,
            "finished": report.finished,
            "retry": report.retry,
        }
        for pair, report in latest.items()
        if heard.get(pair, _UNHEARD).end <= _end_of(report)
    ]
    upsert(connection, device_deployments, rows, keep=("started",))


def _known(connection: sa.Connection, ids: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for chunk in in_chunks(sorted({clean(deployment) for deployment in ids})):
        query = sa.select(deployments.c.id).where(deployments.c.id.in_(chunk))
        found.update(connection.execute(query).scalars())
    return found


class _Heard(NamedTuple):
    """The try that a device spoke of last, and when that ended (Unix seconds); None if it has not."""

    retry: int
    finished: int | None

    @property
    def end(self) -> tuple[int, int]:
        return self.retry, -1 if self.finished is None else self.finished


_UNHEARD = _Heard(retry=0, finished=None)


def _heard(
    connection: sa.Connection, pairs: Iterable[tuple[NodeId, str]]
) -> dict[tuple[NodeId, str], _Heard]:
    wanted = set(pairs)
    table = device_deployments
    heard: dict[tuple[NodeId, str], _Heard] = {}
    for chunk in in_chunks(sorted({node for node, _ in wanted})):
        query = sa.select(table.c.node, table.c.deployment, table.c.retry, table.c.finished).where(
            table.c.node.in_(chunk)
        )
        for node, deployment, retry, finished in connection.execute(query):
            if (node, deployment) in wanted:
                heard[node, deployment] = _Heard(retry=retry, finished=finished)
    return heard


def _goes_on(heard: _Heard, retry: int) -> bool:
    return retry > heard.retry or (retry == heard.retry and heard.finished is None)


def _end_of(report: Report) -> tuple[int, int]:
    return report.retry, report.finished


def _retries(connection: sa.Connection) -> dict[str, dict[NodeId, int]]:
    """The tries that were asked for, by deployment that has not been stopped and device."""
    table = device_deployments
    query = (
        sa.select(table.c.deployment, table.c.node, table.c.retry_wanted)
        .join(deployments, deployments.c.id == table.c.deployment)
        .where(table.c.retry_wanted > 0, deployments.c.stopped.is_(None))
    )
    retries: dict[str, dict[NodeId, int]] = {}
    for deployment, node, wanted in connection.execute(query):
        retries.setdefault(deployment, {})[node] = wanted
    return retries
