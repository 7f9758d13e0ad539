"""Commands: deploying, watching, explaining."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import App, Parameter
from rich.live import Live
from rich.table import Table

from p2pdist.cli.client import Client, segment
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.output import console, errors, say, say_output, show, show_json, table
from p2pdist.cli.words import UNATTRIBUTED, by_source, duration, life, moment, rate, short, size, source_word
from p2pdist.errors import P2PDistError, Unavailable, UsageError
from p2pdist.wire import api as wire

deployment = App(name="deployment", help="Releases ordered onto groups.")

_POLL_S = 1.0
_AWAY_S = 60.0  # a server that restarts is back sooner
_BAD = ("failed", "refused")


class DeploymentFailed(P2PDistError):
    """A deployment has ended, and not every device has the release."""

    exit_code = 6


def deploy(
    target: str,
    group: str,
    /,
    *,
    wait: bool = False,
    timeout: str = "1h",
    common: Common = DEFAULT,
) -> None:
    """Order a release onto a group with its subgroups, devices that join later included.

    Parameters
    ----------
    target
        A target path, or product@version.
    group
        The group.
    wait
        Watch until every device has installed it, failed, or refused it. Exit code 6 if not all have it.
    timeout
        How long to watch: 90s, 30m, 12h.
    """
    try:
        patience = life(timeout)
    except ValueError as error:
        raise UsageError(str(error)) from None
    with common.client() as client:
        made = client.post(
            "/deployments", wire.DeploymentInfo, wire.NewDeployment(target=target, group=group)
        )
        if wait:
            _watch(client, made.id, patience, common)
        elif common.output == "json":
            show_json(made)
        else:
            say(f"{made.id}: {made.target} onto {made.group}, {made.devices} devices now")
            say(f"watch it with: p2pdist deployment show {made.id}")


@deployment.command(name="list")
def deployment_list(*, common: Common = DEFAULT) -> None:
    """List the deployments, newest first."""
    with common.client() as client:
        answer = client.get("/deployments", wire.DeploymentList)
    rows = [(d.id, d.target, d.group, moment(d.created), d.created_by, _state(d)) for d in answer.deployments]
    columns = ("id", "release", "group", "ordered", "by", "devices")
    show(answer, common.output, columns, rows, empty="no deployments: p2pdist deploy RELEASE GROUP")


@deployment.command(name="show")
def deployment_show(
    deployment_id: Annotated[str, Parameter(name="ID")], /, *, common: Common = DEFAULT
) -> None:
    """Show how far each device is with a deployment."""
    with common.client() as client:
        answer = client.get(f"/deployments/{segment(deployment_id)}", wire.DeploymentDetail)
    if common.output == "json":
        show_json(answer)
        return
    console().print(_devices(answer))
    for state in answer.devices:
        say_output(f"{state.name} ({short(state.node)})", state)
    say(f"{answer.deployment.target} onto {answer.deployment.group}: {_state(answer.deployment)}")


@deployment.command(name="stop")
def deployment_stop(
    deployment_id: Annotated[str, Parameter(name="ID")], /, *, common: Common = DEFAULT
) -> None:
    """Stop a deployment: devices that have not begun leave it."""
    with common.client() as client:
        answer = client.delete(f"/deployments/{segment(deployment_id)}", wire.DeploymentInfo)
    if common.output == "json":
        show_json(answer)
    else:
        say(f"{answer.id} is stopped; {_state(answer)}")


@deployment.command(name="retry")
def deployment_retry(
    deployment_id: Annotated[str, Parameter(name="ID")],
    /,
    *devices: Annotated[str, Parameter(name="DEVICE")],
    wait: bool = False,
    timeout: str = "1h",
    common: Common = DEFAULT,
) -> None:
    """Try again on devices on which a deployment failed or was refused; without names on all of them.

    Parameters
    ----------
    devices
        Names, ids, or beginnings of ids. Devices that are off try again when they are back.
    wait
        Watch until every device has installed it, failed, or refused it. Exit code 6 if not all have it.
    timeout
        How long to watch: 90s, 30m, 12h.
    """
    patience = _patience(timeout)
    with common.client() as client:
        answer = client.post(
            f"/deployments/{segment(deployment_id)}/retry",
            wire.RetriedDeployment,
            wire.RetryDeployment(devices=list(devices)),
        )
        if wait:
            _watch(client, answer.deployment.id, patience, common)
        elif common.output == "json":
            show_json(answer)
        elif answer.devices:
            count = len(answer.devices)
            say(f"{answer.deployment.target} is tried again on {count} device{'s' if count > 1 else ''}")
            say(f"watch it with: p2pdist deployment show {answer.deployment.id}")
        else:
            say(f"{answer.deployment.id} has failed on no device that it reaches")


def explain(
    device: str, name: Annotated[str, Parameter(name="RELEASE")], /, *, common: Common = DEFAULT
) -> None:
    """Show where a device gets a release from: every source, why it was taken or refused, and its bytes.

    Parameters
    ----------
    device
        A device's name, its id, or the beginning of its id.
    name
        A target path, or product@version.
    """
    with common.client() as client:
        answer = client.get("/explain", wire.Explanation, device=device, target=name)
    if common.output == "json":
        show_json(answer)
        return
    share = f", {answer.fraction:.0%}" if answer.stage not in ("not begun", "installed", "refused") else ""
    why = f": {answer.reason}" if answer.reason else ""
    say(f"{answer.target} on {answer.name} ({answer.node}) in {answer.group}")
    say(f"{answer.stage}{share}{why}")
    if answer.reported is not None:
        received = {UNATTRIBUTED: answer.unattributed}
        for source in answer.sources:
            received[source.role] = received.get(source.role, 0) + source.received
        fetched = by_source(received, answer.wasted)
        say(f"fetched {fetched}; it holds {size(answer.held)} of {size(answer.length)}")
        say(f"as reported {moment(answer.reported)}")
    if answer.sources:
        rows = [
            (
                s.name or "-",
                short(s.node),
                source_word(s.role),
                s.address or "-",
                "yes" if s.taken else "no",
                s.path or "-",
                size(s.received),
                size(s.sent),
                s.reason,
            )
            for s in answer.sources
        ]
        columns = ("source", "id", "role", "address", "taken", "path", "received", "sent", "why")
        console().print(table(columns, rows, right=("received", "sent")))
    for note in answer.notes:
        say(f"- {note}")


def _patience(timeout: str) -> float:
    try:
        return life(timeout)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _watch(client: Client, deployment_id: str, patience_s: float, common: Common) -> None:
    """Show a deployment until it has ended.

    Raises:
        DeploymentFailed: it has ended, and a device does not have the release.
        Unavailable: it has not ended in time, or the server stays away.
    """
    path = f"/deployments/{segment(deployment_id)}"
    deadline = time.monotonic() + patience_s
    answered = time.monotonic()
    with Live(console=errors(), auto_refresh=False, transient=common.output == "json") as live:
        while True:
            try:
                detail = client.get(path, wire.DeploymentDetail)
            except Unavailable:
                if time.monotonic() - answered > _AWAY_S:
                    raise
            else:
                answered = time.monotonic()
                live.update(_devices(detail), refresh=True)
                if detail.finished and detail.devices:
                    break
                if detail.deployment.stopped is not None:
                    break
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the deployment {deployment_id} has not ended in {duration(patience_s)}",
                    hint=f"it goes on; look again with: p2pdist deployment show {deployment_id}",
                )
            time.sleep(_POLL_S)
    if common.output == "json":
        show_json(detail)
    else:
        for state in detail.devices:
            say_output(f"{state.name} ({short(state.node)})", state)
        say(f"{detail.deployment.target} onto {detail.deployment.group}: {_state(detail.deployment)}")
    bad = [device for device in detail.devices if device.stage in _BAD]
    if bad:
        raise DeploymentFailed(
            f"{len(bad)} of {len(detail.devices)} devices do not have it; the first, {bad[0].name}, says:"
            f" {bad[0].reason}",
            hint=f"p2pdist deployment show {deployment_id}",
        )
    if not detail.finished:
        raise DeploymentFailed("the deployment was stopped before every device had it")


def _devices(detail: wire.DeploymentDetail) -> Table:
    rows = [
        (
            d.name,
            short(d.node),
            d.stage,
            f"{d.fraction:.0%}",
            rate(d.rate_bytes_per_s),
            str(d.sources) if d.sources else "",
            ", ".join(f"{source_word(role)} {size(n)}" for role, n in sorted(d.received.items()) if n),
            f"to be tried again; before: {d.reason}" if d.retry_pending else d.reason,
        )
        for d in detail.devices
    ]
    columns = ("device", "id", "stage", "done", "rate", "sources", "from", "reason")
    return table(columns, rows, right=("done", "rate", "sources"))


def _state(info: wire.DeploymentInfo) -> str:
    stages = ", ".join(f"{count} {stage}" for stage, count in sorted(info.stages.items()))
    stopped = f" (stopped {moment(info.stopped)})" if info.stopped is not None else ""
    return f"{stages or 'no devices'} of {info.devices}{stopped}"
