"""Commands: versions that vendors offer, and how they come to the signing tool."""

from __future__ import annotations

import hashlib
import json
import time
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
import trio
from cyclopts import App, Parameter
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from p2pdist.cli.client import Client, segment
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.output import errors, say, show, show_facts, show_json
from p2pdist.cli.words import ago, moment, size
from p2pdist.errors import PeerError, UsageError
from p2pdist.files import read_bounded, storage_error, write_atomic
from p2pdist.limits import MIB
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.trust.requirements import check_mirror, check_platform
from p2pdist.wire import api as wire
from p2pdist.wire.following import Offer

proposal = App(name="proposal", help="Versions that vendors offer, to be signed or dropped.")

MANIFEST = "releases.toml"


class Fetched(wire.Answer, frozen=True, kw_only=True):
    """What `p2pdist proposal fetch` says in JSON."""

    proposal: wire.ProposalInfo
    path: str
    manifest: str
    sha256: str


@proposal.command(name="list")
def proposal_list(
    *,
    state: str = "new",
    everything: Annotated[bool, Parameter(name="--all")] = False,
    common: Common = DEFAULT,
) -> None:
    """List what vendors offer and nobody has decided on.

    Parameters
    ----------
    state
        new, superseded (by a newer one), gone (not on offer any more), dropped, or published.
    everything
        Whatever their state.
    """
    with common.client() as client:
        answer = _all(client, "" if everything else state)
    now = time.time()
    found = sorted(answer.proposals, key=lambda each: (each.product, each.architecture, -each.first))
    rows = [
        (
            each.id,
            each.product,
            each.version,
            each.architecture or "-",
            size(each.size_bytes) if each.size_bytes else "-",
            each.state,
            "yes" if each.signed else "no",
            ago(each.first, now),
            each.task,
        )
        for each in found
    ]
    columns = ("id", "product", "version", "for", "size", "state", "signed", "found", "task")
    show(answer, common.output, columns, rows, right=("size",), empty="nothing is proposed")


@proposal.command(name="show")
def proposal_show(chosen: Annotated[str, Parameter(name="ID")], /, *, common: Common = DEFAULT) -> None:
    """Show one proposal.

    Parameters
    ----------
    chosen
        Its id in `p2pdist proposal list`, or the beginning of it.
    """
    with common.client() as client:
        found = client.get(f"/proposals/{segment(chosen)}", wire.ProposalInfo)
    facts = [
        ("id", found.id),
        ("product", found.product),
        ("version", found.version),
        ("architecture", found.architecture),
        ("state", found.state),
        ("release", found.release),
        ("from", found.url),
        ("size", size(found.size_bytes) if found.size_bytes else "the vendor does not say"),
        ("sha256", found.sha256 or "the vendor does not say"),
        ("index", "signed by the vendor" if found.signed else "not signed"),
        ("on offer", f"{moment(found.first)} to {moment(found.last)}"),
        ("task", found.task),
    ]
    show_facts(found, common.output, [(name, value) for name, value in facts if value])


@proposal.command(name="drop")
def proposal_drop(chosen: Annotated[str, Parameter(name="ID")], /, *, common: Common = DEFAULT) -> None:
    """Drop a proposal: it is not made again while this version is on offer."""
    with common.client() as client:
        found = client.delete(f"/proposals/{segment(chosen)}", wire.ProposalInfo)
    if common.output == "json":
        show_json(found)
    else:
        say(f"dropped {found.product} {found.version} ({found.id})")


@proposal.command(name="fetch")
def proposal_fetch(
    chosen: Annotated[str, Parameter(name="ID")],
    directory: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    command: str = "",
    to: str = "",
    platform: str = "",
    web_ca: Path | None = None,
    proxy: str = "",
    proxy_user: str = "",
    proxy_password_file: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Fetch a proposed version from its vendor, check it, and write a manifest for the signing tool.

    The manifest is DIR/releases.toml; several proposals can be fetched into one directory. What was fetched
    is then added and signed, where the keys are:

        p2pdist proposal fetch 5f0c DIR
        p2pdist-sign add stable --manifest DIR/releases.toml

    Parameters
    ----------
    chosen
        Its id in `p2pdist proposal list`, or the beginning of it.
    directory
        Where it comes; made if it is not there.
    command
        What installs it, where it is no Debian package: '{artifact} --quiet'. See p2pdist-sign add.
    to
        ... or where it stands on devices, if it is a file to be replaced.
    platform
        ... and for which platform it is.
    web_ca
        CA certificates (PEM) for vendors' servers, instead of the system's.
    proxy
        http://HOST:PORT or https://HOST:PORT.
    proxy_user
        The name that the proxy wants.
    proxy_password_file
        A file with the password that the proxy wants.
    """
    settings = MirrorSettings(
        ca_file=web_ca, proxy=proxy, proxy_user=proxy_user, proxy_password_file=proxy_password_file
    )
    with common.client() as client:
        found = client.get(f"/proposals/{segment(chosen)}", wire.ProposalInfo)
    _check(found)
    table = _table(found, command=command, to=to, platform=platform)
    manifest = directory / MANIFEST
    text = _joined(manifest, table)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(f"{directory} could not be made", error) from error
    path = directory / found.file
    sha256 = _sha256(path) if found.sha256 and path.is_file() else ""
    if not sha256 or sha256 != found.sha256:
        sha256 = _download(found, path, settings)
    write_atomic(manifest, text.encode())
    if common.output == "json":
        show_json(Fetched(proposal=found, path=str(path), manifest=str(manifest), sha256=sha256))
        return
    say(f"{path}: {found.product} {found.version}, SHA-256 {sha256}")
    if not found.sha256:
        say("the vendor says no checksum: compare this one with what you know")
    say(f"next, where the keys are: p2pdist-sign add CHANNEL --manifest {manifest}")


def _all(client: Client, state: str) -> wire.ProposalList:
    found: list[wire.ProposalInfo] = []
    after = ""
    while True:
        answer = client.get("/proposals", wire.ProposalList, state=state, after=after)
        found += answer.proposals
        if not answer.next:
            return msgspec.structs.replace(answer, proposals=found)
        after = answer.next


def _check(found: wire.ProposalInfo) -> None:
    """Check what becomes a path and an address here, whatever the server says. Raises PeerError."""
    try:
        msgspec.convert(msgspec.structs.asdict(found), Offer)
        check_mirror(found.url, plain=bool(found.sha256))
    except (msgspec.ValidationError, UsageError) as error:
        raise PeerError(f"the server says of proposal {found.id[:20]} what cannot be ({error})") from None


def _download(found: wire.ProposalInfo, path: Path, settings: MirrorSettings) -> str:
    from p2pdist.duties.follow.download import download

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors(), transient=True) as bars:
        bar = bars.add_task(found.file, total=found.size_bytes or None)

        async def fetch() -> str:
            return await download(
                found.url,
                path,
                size_bytes=found.size_bytes,
                sha256=found.sha256,
                settings=settings,
                progress=lambda done, total: bars.update(bar, completed=done, total=total or None),
            )

        return trio.run(fetch)


def _table(found: wire.ProposalInfo, *, command: str, to: str, platform: str) -> dict[str, str | list[str]]:
    """Return what a manifest says of the release. Raises UsageError when that is not enough to install it."""
    if not found.file.endswith(".deb") and not command and not to:
        raise UsageError(
            f"it does not show how {found.file} is installed",
            hint="say --command '{artifact} --quiet' if it is run, or --to /path if it replaces a file",
        )
    if platform:
        check_platform(platform)
    fields: dict[str, str | list[str]] = {
        "path": found.file,
        "product": found.product,
        "version": found.version.replace(":", "+"),
        "platform": platform,
        "command": command,
        "to": to,
    }
    if _is_mirror(found.url):
        fields["mirrors"] = [found.url]
    return {name: value for name, value in fields.items() if value}


def _is_mirror(url: str) -> bool:
    """Distribution points take content from where there is TLS only."""
    try:
        check_mirror(url)
    except UsageError:
        return False
    return True


def _joined(manifest: Path, table: dict[str, str | list[str]]) -> str:
    """Return the manifest with one more table, in the place of one with the same path.

    Raises:
        UsageError: what is there is no manifest.
    """
    tables = [table]
    if manifest.exists():
        try:
            known = tomllib.loads(read_bounded(manifest, bytes_max=4 * MIB).decode())["release"]
            tables = [each for each in known if each["path"] != table["path"]] + tables
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError):
            raise UsageError(f"{manifest} is not a manifest", hint="choose another directory") from None
    lines = ["# Written by p2pdist proposal fetch: look through it before you add and sign it."]
    for each in tables:
        lines += [
            "",
            "[[release]]",
            *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in each.items()),
        ]
    return "\n".join(lines) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
