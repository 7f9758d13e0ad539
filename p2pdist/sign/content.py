"""What the fleet may install, and who may hand it out: list, revoke, rollback, grant."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from p2pdist.errors import UsageError
from p2pdist.ids import (
    GroupPath,
    parse_channel,
    parse_group,
    parse_node_id,
)
from p2pdist.sign.ceremony import revoke_key
from p2pdist.sign.options import OPTIONS, Options, changed, time_now
from p2pdist.trust import changes, releases
from p2pdist.trust.catalog import Duty, SeedGrant
from p2pdist.trust.contents import POINTS_ROLE, channel_role

_SIZE = re.compile(r"([0-9]+)\s*([kmgt]i?)?b?\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

revoke_app = App(name="revoke", help="Take back a release, a seed grant or a key.")
revoke_app.command(revoke_key, name="key")


def list_(channel: str | None = None, /, *, options: Options = OPTIONS) -> None:
    """List the releases of all channels (or of one), and the seed grants, as they will be.

    Drafts included:

        p2pdist-sign list
        p2pdist-sign list stable
        p2pdist-sign list --output json

    Parameters
    ----------
    channel
        Only this channel.
    """
    state = options.open().load()
    roles = [channel_role(parse_channel(channel))] if channel else state.roles()[2:]
    found: list[dict[str, Any]] = []
    grants: list[dict[str, Any]] = []
    for role in roles:
        for path, file in sorted(state.latest(role).signed.targets.items()):
            if role == POINTS_ROLE:
                grants.append(dict(file.custom))
            else:
                found.append({"target": path, "length": file.length, **file.custom})

    def render(console: Console) -> None:
        table = Table("target", "sequence", "platform", "bytes", "how", "way back")
        for release in found:
            cells = [release["target"], release["sequence"], release["platform"], release["length"]]
            back = release.get("rollback_from")
            table.add_row(*map(str, cells), release["recipe"]["kind"], f"from up to {back}" if back else "-")
        console.print(table)
        table = Table("distribution point", "scope", "duties", "addresses", "who dials", "until")
        for grant in grants:
            until = f"{datetime.fromtimestamp(grant['expires'], UTC):%Y-%m-%d}"
            duties, addresses = ", ".join(grant["duties"]), ", ".join(grant["addresses"])
            dials = "those above" if grant.get("dialled") else "it"
            table.add_row(grant["node"], grant["scope"], duties, addresses, dials, until)
        if grants:
            console.print(table)

    options.answer({"releases": found, "grants": grants}, render)


@revoke_app.command(name="target")
def revoke_target(target: str, /, *, options: Options = OPTIONS) -> None:
    """Take a release out of its channel: no device installs it any more. Those that have it keep it.

    Signed and published it takes effect:

        p2pdist-sign revoke target app@3.1
        p2pdist-sign revoke target stable/app/3.1/app-3.1.tar.zst

    Parameters
    ----------
    target
        PRODUCT@VERSION, or the release's target path as `list` shows it.
    """
    with options.open().change() as state:
        path = releases.find_release(state, target)
        releases.remove_release(state, path, time_now())
    changed(options, state, [f"{path} is withdrawn"], target=path)


@revoke_app.command(name="grant")
def revoke_grant(node: str, /, *, options: Options = OPTIONS) -> None:
    """Withdraw a distribution point's seed grant.

    Signed and published it takes effect:

        p2pdist-sign revoke grant q5dgtkqaw4lp2wnvmzq3xjc7yhfoqjax

    Parameters
    ----------
    node
        The node's id, as `list` shows it.
    """
    with options.open().change() as state:
        changes.remove_grant(state, parse_node_id(node), time_now())
    changed(options, state, [f"the grant of {node} is withdrawn"], node=node)


def rollback(
    target: str,
    /,
    *,
    from_: Annotated[int | None, Parameter(name="--from")] = None,
    options: Options = OPTIONS,
) -> None:
    """Permit devices to go back to an older release, which they refuse otherwise.

    Up to the newest one, or up to a number:

        p2pdist-sign rollback app@3.0
        p2pdist-sign rollback stable/app/3.0/app-3.0.tar.zst --from 12

    Parameters
    ----------
    target
        The older release: PRODUCT@VERSION, or its target path as `list` shows it.
    from_
        The highest sequence number from which devices may go back; by default the newest of the product.
    """
    with options.open().change() as state:
        path = releases.find_release(state, target)
        limit = releases.allow_rollback(state, path, from_, time_now())
    lines = [f"devices may go back to {path} from sequence numbers up to {limit}"]
    changed(options, state, lines, target=path, rollback_from=limit)


def grant(
    node: str,
    /,
    *,
    scope: str,
    duty: list[Duty] | None = None,
    address: list[str] | None = None,
    days: Annotated[int, Parameter(alias="--expires-days")] = 365,
    disk: str = "0",
    wan_rate: str = "0",
    dialled: Annotated[bool, Parameter(negative="")] = False,
    options: Options = OPTIONS,
) -> None:
    """Grant a node the right to act as a distribution point. Replaces the grant that it has.

    Its id is what its enrolment printed:

        p2pdist-sign grant q5dgtkqaw4lp2wnvmzq3xjc7yhfoqjax \\
            --scope /emea/berlin --address 10.1.0.2:7601 --disk 200GB

    A gateway in a DMZ, from which nothing may be dialled:

        p2pdist-sign grant q5dgtkqaw4lp2wnvmzq3xjc7yhfoqjax \\
            --scope /emea/plant --duty seed --duty gateway \\
            --address 203.0.113.9:7601 --dialled

    Parameters
    ----------
    node
        The node's id, as `p2pdist-seed enrol` printed it and `p2pdist device list` shows it.
    scope
        The group that it serves, with all its subgroups.
    duty
        What it may do; can be given several times. seed (default): serve content to its scope, and link the
        devices there with the admin server. gateway, beside seed: link gateways behind it too, keep what they
        need, bring devices behind different NATs together, and answer STUN for sessions. discovery, deploy
        and push: not used yet by this version.
    address
        host:port at which its devices reach it, in the order to be tried. Can be given several times. With
        --dialled the admin server, or the gateway above, dials it there too.
    days
        After how many days the grant ends.
    disk
        How much of its disk it uses, such as 200GB; 0 is all that is free.
    wan_rate
        Bytes per second that it may take from outside its site, such as 2MB; 0 is unlimited.
    dialled
        It dials nobody: the admin server, or a gateway above it, dials it.
    """
    seed = SeedGrant(
        node=parse_node_id(node),
        duties=tuple(duty or ("seed",)),
        scope=GroupPath(parse_group(scope)),
        addresses=tuple(address or ()),
        expires=int((time_now() + timedelta(days=days)).timestamp()),
        disk_bytes=parse_size(disk),
        wan_bytes_per_s=parse_size(wan_rate),
        dialled=dialled,
    )
    with options.open().change() as state:
        changes.put_grant(state, seed, time_now())
    lines = [f"{node} may act as a distribution point for {scope}: {', '.join(seed.duties)}"]
    if dialled:
        lines.append(f"it dials nobody: those above dial it at {', '.join(seed.addresses)}")
    changed(options, state, lines, node=node, scope=scope, duties=list(seed.duties), expires=seed.expires)


def parse_size(text: str) -> int:
    """Read a number of bytes such as ``200GB`` or ``512MiB``. Raises UsageError."""
    match = _SIZE.match(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size", hint="write 200GB, 512MiB or a number of bytes")
    unit = (match[2] or "").lower()
    return int(match[1]) * (_UNITS.get(unit) or _BINARY_UNITS[unit])
