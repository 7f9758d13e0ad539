"""Commands: groups, tokens, devices, distribution points."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from p2pdist.cli.client import segment
from p2pdist.cli.common import DEFAULT, Common, check_new
from p2pdist.cli.output import console, say, say_output, show, show_facts, show_json, table
from p2pdist.cli.words import ago, duration, life, moment, short, size
from p2pdist.errors import UsageError
from p2pdist.files import write_secret
from p2pdist.wire import api as wire

group = App(name="group", help="The tree of administration groups.")
token = App(name="token", help="Enrolment tokens: who has one may enrol devices into its group.")
api_token = App(name="api-token", help="Tokens for this command line.")
device = App(name="device", help="Enrolled devices.")
point = App(name="point", help="Distribution points.")


# Groups ----------------------------------------------------------------------------------------------


@group.command(name="list")
def group_list(*, common: Common = DEFAULT) -> None:
    """List every group."""
    with common.client() as client:
        answer = client.get("/groups", wire.GroupList)
    rows = [
        (g.path, str(g.devices), ", ".join(short(node) for node in g.points) or "-") for g in answer.groups
    ]
    show(answer, common.output, ("group", "devices", "points"), rows, right=("devices",))


@group.command(name="add")
def group_add(path: str, /, *, common: Common = DEFAULT) -> None:
    """Make a group and the ancestors that it lacks.

    Parameters
    ----------
    path
        The group's path from the root, such as /emea/berlin.
    """
    with common.client() as client:
        answer = client.post("/groups", wire.GroupsChanged, wire.NewGroup(path=path))
    _changed(answer, common, "made")


@group.command(name="move")
def group_move(path: str, to: str, /, *, common: Common = DEFAULT) -> None:
    """Move a group with its subgroups and devices.

    Parameters
    ----------
    path
        The group.
    to
        Its new path.
    """
    with common.client() as client:
        answer = client.post("/groups/move", wire.GroupsChanged, wire.MoveGroup(path=path, to=to))
    _changed(answer, common, "now there:")


@group.command(name="remove")
def group_remove(path: str, /, *, common: Common = DEFAULT) -> None:
    """Remove an empty group."""
    with common.client() as client:
        answer = client.post("/groups/remove", wire.Done, wire.RemoveGroup(path=path))
    _done(answer, common, f"removed {path}")


def _changed(answer: wire.GroupsChanged, common: Common, word: str) -> None:
    if common.output == "json":
        show_json(answer)
        return
    say(f"{word} {', '.join(answer.paths)}")
    for warning in answer.warnings:
        say(f"warning: {warning}")


def _done(answer: wire.Done, common: Common, text: str) -> None:
    if common.output == "json":
        show_json(answer)
    else:
        say(text)


# Tokens ----------------------------------------------------------------------------------------------


@token.command(name="add")
def token_add(
    path: Annotated[str, Parameter(name="GROUP")],
    /,
    *,
    uses: int = 1,
    valid: str = "24h",
    note: str = "",
    to: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Make an enrolment token. Its secret is shown once.

    Parameters
    ----------
    path
        The group that devices are enrolled into.
    uses
        How many devices it enrols.
    valid
        How long: 90s, 30m, 12h, 7d.
    note
        What it is for.
    to
        Write the secret to this file, readable by you only, instead of printing it.
    """
    check_new(to)
    body = wire.NewToken(group=path, uses=uses, life_s=_seconds(valid), note=note)
    with common.client() as client:
        made = client.post("/tokens", wire.MadeToken, body)
    _hand_over(made, to, common)


@token.command(name="list")
def token_list(*, common: Common = DEFAULT) -> None:
    """List the enrolment tokens, without their secrets."""
    with common.client() as client:
        answer = client.get("/tokens", wire.TokenList)
    rows = [
        (t.id, t.group, t.state, f"{t.uses_left} of {t.uses}", moment(t.expires), t.created_by, t.note)
        for t in answer.tokens
    ]
    columns = ("id", "group", "state", "uses left", "valid until", "made by", "note")
    show(answer, common.output, columns, rows, empty="no enrolment tokens: p2pdist token add GROUP")


@token.command(name="remove")
def token_remove(token_id: Annotated[str, Parameter(name="ID")], /, *, common: Common = DEFAULT) -> None:
    """Withdraw an enrolment token."""
    with common.client() as client:
        answer = client.delete(f"/tokens/{segment(token_id)}", wire.Done)
    _done(answer, common, f"withdrew {token_id}")


@api_token.command(name="add")
def api_token_add(
    name: str,
    /,
    *,
    role: wire.ApiRole = "operator",
    valid: str = "",
    to: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Make a token for this command line. Its secret is shown once.

    Parameters
    ----------
    name
        Whose it is; stands in the audit log.
    role
        reader looks, operator deploys and enrols, admin does everything.
    valid
        How long: 12h, 90d; without it, until it is withdrawn.
    to
        Write the secret to this file, readable by you only, instead of printing it.
    """
    check_new(to)
    body = wire.NewApiToken(name=name, role=role, life_s=_seconds(valid) if valid else None)
    with common.client() as client:
        made = client.post("/api-tokens", wire.MadeToken, body)
    _hand_over(made, to, common)


@api_token.command(name="list")
def api_token_list(*, common: Common = DEFAULT) -> None:
    """List the tokens for this command line, without their secrets."""
    with common.client() as client:
        answer = client.get("/api-tokens", wire.ApiTokenList)
    rows = [(t.id, t.name, t.role, moment(t.expires), moment(t.created)) for t in answer.tokens]
    show(answer, common.output, ("id", "name", "role", "valid until", "made"), rows)


@api_token.command(name="remove")
def api_token_remove(token_id: Annotated[str, Parameter(name="ID")], /, *, common: Common = DEFAULT) -> None:
    """Withdraw a token for this command line."""
    with common.client() as client:
        answer = client.delete(f"/api-tokens/{segment(token_id)}", wire.Done)
    _done(answer, common, f"withdrew {token_id}")


def _hand_over(made: wire.MadeToken, to: Path | None, common: Common) -> None:
    if to is not None:
        write_secret(to, made.token.encode() + b"\n")
        say(f"{to} holds the token {made.id}, valid until {moment(made.expires)}")
    elif common.output == "json":
        show_json(made)
    else:
        say(made.token)


def _seconds(text: str) -> int:
    try:
        return life(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


# Devices ---------------------------------------------------------------------------------------------


@device.command(name="list")
def device_list(*, group: str = "/", common: Common = DEFAULT) -> None:
    """List devices.

    Parameters
    ----------
    group
        Only those in this group and its subgroups.
    """
    with common.client() as client:
        answer = client.get("/devices", wire.DeviceList, group=group)
    now = time.time()
    rows = [
        (
            d.name,
            short(d.node),
            d.group,
            d.role,
            d.state,
            short(d.via) or "server",
            ago(d.last_seen, now),
            d.platform,
        )
        for d in answer.devices
    ]
    columns = ("name", "id", "group", "role", "state", "via", "heard", "platform")
    show(answer, common.output, columns, rows, empty="no devices: make a token with p2pdist token add GROUP")


@device.command(name="show")
def device_show(name: Annotated[str, Parameter(name="DEVICE")], /, *, common: Common = DEFAULT) -> None:
    """Show everything that is known of a device.

    Parameters
    ----------
    name
        Its name, its id, or the beginning of its id.
    """
    with common.client() as client:
        answer = client.get(f"/devices/{segment(name)}", wire.DeviceDetail)
    d = answer.device
    now = time.time()
    facts = [
        ("name", d.name),
        ("id", d.node),
        ("group", d.group),
        ("role", d.role),
        ("state", d.state),
        ("carried by", d.via or "the server itself"),
        ("platform", d.platform),
        ("program", d.program),
        ("enrolled", moment(d.enrolled)),
        ("heard of", ago(d.last_seen, now)),
        ("certificate until", moment(d.certificate_expires)),
        ("disk free", size(d.disk_free_bytes)),
        ("may join", ", ".join(answer.swarms) or "-"),
        ("installed", ", ".join(f"{p} {n}" for p, n in sorted(d.installed.items())) or "-"),
    ]
    if answer.woken:
        ways = (
            f"{w.way} {w.reached} of {w.tried} times, in {w.delay_ms / 1_000:.2f} s" for w in answer.woken
        )
        facts.append(("woken", "; ".join(ways)))
    if d.revoked_reason:
        facts.append(("revoked", d.revoked_reason))
    if answer.clones:
        facts.append(("clones", f"{d.clones}; last from {answer.clones[0].host}: {answer.clones[0].reason}"))
    show_facts(answer, common.output, facts)
    if common.output == "table" and answer.deployments:
        rows = [
            (x.target, x.stage, f"{x.fraction:.0%}", x.reason, ago(x.updated, now))
            for x in answer.deployments
        ]
        console().print()
        console().print(table(("release", "stage", "done", "reason", "said"), rows, right=("done",)))
        for state in answer.deployments:
            say_output(state.target, state)


@device.command(name="move")
def device_move(
    name: Annotated[str, Parameter(name="DEVICE")], group: str, /, *, common: Common = DEFAULT
) -> None:
    """Put a device into another group.

    Parameters
    ----------
    name
        Its name, its id, or the beginning of its id.
    group
        The group.
    """
    with common.client() as client:
        answer = client.post(f"/devices/{segment(name)}/move", wire.DeviceInfo, wire.MoveDevice(group=group))
    if common.output == "json":
        show_json(answer)
    else:
        say(f"{answer.name} ({short(answer.node)}) stands in {answer.group}")


def revoke(
    name: Annotated[str, Parameter(name="DEVICE")], /, *, reason: str, common: Common = DEFAULT
) -> None:
    """Take a device out of the fleet for good. Its link ends at once.

    Parameters
    ----------
    name
        Its id, at least eight characters of it, or its name.
    reason
        Why; the device shows it to its user.
    """
    with common.client() as client:
        answer = client.post(
            f"/devices/{segment(name)}/revoke", wire.DeviceInfo, wire.RevokeDevice(reason=reason)
        )
    if common.output == "json":
        show_json(answer)
    else:
        until = duration(max(0.0, answer.certificate_expires - time.time()))
        say(f"{answer.name} ({answer.node}) is revoked; in the swarm its certificate ends in {until}")


@point.command(name="list")
def point_list(*, common: Common = DEFAULT) -> None:
    """List every distribution point that has a signed grant."""
    with common.client() as client:
        answer = client.get("/points", wire.PointList)
    rows = [
        (
            p.name or "-",
            short(p.node),
            p.scope,
            p.state,
            str(p.carries),
            ", ".join(p.duties),
            ", ".join(p.addresses),
            p.call or ("dialled" if p.dialled else "dials"),
            moment(p.expires),
        )
        for p in answer.points
    ]
    columns = ("name", "id", "scope", "state", "carries", "duties", "addresses", "link", "grant until")
    empty = "no distribution points: sign a grant with p2pdist-sign grant, and publish it"
    show(answer, common.output, columns, rows, right=("carries",), empty=empty)
