"""Commands: releases, channels, publishing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from p2pdist.cli.client import segment
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.output import errors, say, show, show_facts, show_json
from p2pdist.cli.publishing import deploy as order
from p2pdist.cli.publishing import publish as hand_over
from p2pdist.cli.publishing import read_publication, upload
from p2pdist.cli.words import moment, short, size
from p2pdist.ids import InfoHash
from p2pdist.trust.catalog import Release
from p2pdist.wire import api as wire


class PublishedAndDeployed(wire.Answer, frozen=True, kw_only=True):
    """What `p2pdist publish --deploy` says in JSON."""

    published: wire.Published
    deployments: list[wire.DeploymentInfo]


release = App(name="release", help="Signed releases.")
channel = App(name="channel", help="Channels: lines of releases with their own keys and their own swarm.")


@release.command(name="list")
def release_list(*, common: Common = DEFAULT) -> None:
    """List every signed release."""
    with common.client() as client:
        answer = client.get("/releases", wire.ReleaseList)
    rows = [
        (
            r.target,
            f"{r.product}@{r.version}",
            str(r.sequence),
            r.platform,
            r.recipe,
            size(r.length),
            short(r.info_hash),
            _at_server(r),
        )
        for r in answer.releases
    ]
    columns = ("target", "release", "sequence", "platform", "kind", "size", "artifact", "at the server")
    empty = "nothing is published: p2pdist publish DIR"
    show(answer, common.output, columns, rows, right=("sequence", "size"), empty=empty)
    if common.output == "table":
        for what, why in answer.left_out.items():
            say(f"left out: {what}: {why}")


@release.command(name="show")
def release_show(name: Annotated[str, Parameter(name="RELEASE")], /, *, common: Common = DEFAULT) -> None:
    """Show one release.

    Parameters
    ----------
    name
        A target path, or product@version.
    """
    with common.client() as client:
        r = client.get(f"/releases/{segment(name)}", wire.ReleaseInfo)
    facts = [
        ("target", r.target),
        ("product", r.product),
        ("version", f"{r.version}, sequence {r.sequence}"),
        ("platform", r.platform),
        ("kind", r.recipe),
        ("size", f"{size(r.length)} ({r.length} bytes)"),
        ("SHA-256", r.sha256),
        ("artifact", r.info_hash),
        ("at the server", _at_server(r)),
        *(("mirror", url) for url in r.mirrors),
    ]
    facts += [("delta", f"{size(d.length)} for devices with the artifact {short(d.base)}") for d in r.deltas]
    if r.rollback_from is not None:
        facts.append(("rollback", f"permitted from sequence {r.rollback_from} and below"))
    show_facts(r, common.output, facts)


@channel.command(name="list")
def channel_list(*, common: Common = DEFAULT) -> None:
    """List every channel."""
    with common.client() as client:
        answer = client.get("/channels", wire.ChannelList)
    rows = [(c.name, str(c.releases), str(c.version)) for c in answer.channels]
    columns = ("channel", "releases", "version")
    show(answer, common.output, columns, rows, right=columns[1:], empty="nothing is published")


def publish(
    directory: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    deploy: Annotated[str | None, Parameter(name="--deploy")] = None,
    mirrored: bool = False,
    common: Common = DEFAULT,
) -> None:
    """Bring a signed publication to the server. Repeat it after an interruption: it goes on where it was.

    Parameters
    ----------
    directory
        What `p2pdist-sign publish` wrote.
    deploy
        Order every release that is new to the server onto this group with its subgroups.
    mirrored
        Upload nothing of releases that name mirrors: distribution points get them there, see `p2pdist fetch`.
    """
    publication = read_publication(directory)
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=errors(),
        disable=common.output == "json",
    )
    with common.client() as client, bars:
        tasks: dict[InfoHash, TaskID] = {}
        uploaded = [each for each in publication.releases() if not (mirrored and each.mirrors)]
        for each in uploaded:
            whole = each.info_hash == publication.catalog.releases[each.target].info_hash
            what = each.target if whole else f"{each.target}, a delta"
            tasks[each.info_hash] = bars.add_task(what, total=each.length)

        def moved(moving: Release, stored: int) -> None:
            bars.update(tasks[moving.info_hash], completed=stored)

        for each in uploaded:
            upload(client, publication, each, moved)
        answer, new = hand_over(client, publication, mirrored=mirrored)
        made = order(client, new, deploy) if deploy is not None else []
    if common.output == "json":
        show_json(PublishedAndDeployed(published=answer, deployments=made) if deploy is not None else answer)
        return
    say(
        f"published {answer.releases} releases and {answer.points} distribution points;"
        f" the first signature of a person expires {moment(answer.people_expire)}"
    )
    for what, why in answer.left_out.items():
        say(f"left out: {what}: {why}")
    for deployed in made:
        say(f"{deployed.id}: {deployed.target} onto {deployed.group}, {deployed.devices} devices now")
    if deploy is not None and not made:
        say("nothing in it is new to the server, so nothing is deployed: p2pdist deploy RELEASE GROUP")


def _at_server(release: wire.ReleaseInfo) -> str:
    return release.problem or ("no: it comes from its mirrors" if release.mirrored else "served")
