"""Take packages into a channel: content, torrents, deltas, and the targets to be signed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from p2pdist.files import locked
from p2pdist.ids import ChannelName, ProductName, SwarmName, parse_channel, swarm_of
from p2pdist.sign.deltas import Declined, MadeDelta, make_deltas
from p2pdist.sign.options import OPTIONS, Options, changed, time_now
from p2pdist.sign.packages import PACKAGE, Package, PackageOptions, Prepared, completed, packages_of, prepare
from p2pdist.trust import releases
from p2pdist.trust.catalog import Release, ReleaseCustom
from p2pdist.trust.phrases import size_words
from p2pdist.trust.publishing import Progress
from p2pdist.trust.repository import Repository
from p2pdist.trust.signing import SigningState


def add(
    channel: str,
    paths: Annotated[list[Path] | None, Parameter(name="PATH")] = None,
    /,
    *,
    manifest: Path | None = None,
    package: PackageOptions = PACKAGE,
    options: Options = OPTIONS,
) -> None:
    """Add packages to a channel: each becomes an artifact, a torrent and a target to be signed.

    A directory becomes a `tree`: versions side by side, switched atomically. A `.deb` says itself what it
    is. Everything else is a `command` that runs the package, or a single `file` to be replaced.

        p2pdist-sign add stable ./app-3.1 --product app --version 3.1 \\
            --health-check "bin/app --selftest"
        p2pdist-sign add stable vlc_3.0.20_amd64.deb htop_3.2_amd64.deb
        p2pdist-sign add stable setup.run --product tool --version 7 \\
            --command "{artifact} --quiet"
        p2pdist-sign add stable motd --product motd --version 5 --to /etc/motd
        p2pdist-sign add stable --manifest releases.toml

    Adding the same content again changes how it is installed, and leaves its sequence number as it is. In a
    manifest each package is a table; its keys are the options below, in a file:

        [[release]]
        path = "app-3.1"    # from the manifest's directory
        product = "app"
        version = "3.1"
        platform = "linux-x86_64"
        health_check = "bin/app --selftest"
        keep = 2
        timeout_s = 120
        requires = ["base>=4"]

        [[release]]
        path = "motd"
        product = "motd"
        version = "5"
        to = "/etc/motd"
        mode = "0644"
        reload = "systemctl reload motd"
        mirrors = ["https://vendor.example/motd", "https://eu.vendor.example/motd,region=eu"]

    Parameters
    ----------
    channel
        The channel.
    paths
        Packages: files or directories.
    manifest
        A TOML file that lists packages, instead of paths.
    """
    packages = [completed(one) for one in packages_of(paths or [], manifest, package.shared())]
    state, added = _take_all(options, parse_channel(channel), packages)
    lines = []
    for entry in added:
        lines.append(
            f"{entry['target']}: {entry['outcome']}, sequence {entry['sequence']}, from {entry['path']},"
            f" {size_words(entry['length'])}, info-hash {entry['info_hash'][:12]}…"
        )
        lines += [
            f"  from {each['from']} by a delta of {size_words(each['length'])}" for each in entry["deltas"]
        ]
        lines += [f"  from {target} whole: {reason}" for target, reason in entry["declined"].items()]
    changed(options, state, lines, added=added)


def _take_all(
    options: Options, channel: ChannelName, packages: Sequence[Package]
) -> tuple[SigningState, list[dict[str, Any]]]:
    repository = options.open()
    state = repository.load()
    releases.check_channel(state, channel)  # before anything is hashed
    swarm = swarm_of(channel, state.fleet)
    added: list[dict[str, Any]] = []
    dropped = []
    with locked(repository.incoming / ".lock", what="adding packages"), options.progress() as progress:
        for leftover in repository.incoming.iterdir():
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
        for one in packages:
            with prepare(repository, channel, swarm, one, progress) as prepared:
                made, declined = _deltas(repository, state, prepared, channel, swarm, progress)
                state = _take(repository, prepared, made, added)
                added[-1]["declined"] = declined
                dropped += state.dropped
    state.dropped = dropped
    return state, added


def _deltas(
    repository: Repository,
    state: SigningState,
    prepared: Prepared,
    channel: ChannelName,
    swarm: SwarmName,
    progress: Progress,
) -> tuple[list[MadeDelta], dict[str, str]]:
    """Make the deltas of what has none; return those that are worth it, and by base why it has none."""
    before = releases.release_of(state, channel, prepared.target)
    if not _wants_deltas(prepared.package) or (before is not None and before.deltas):
        return [], {}
    release = Release(
        target=prepared.target,
        channel=channel,
        product=ProductName(prepared.package.product),
        version=prepared.package.version,
        sequence=prepared.package.sequence or releases.sequence_for(state, prepared.target),
        platform=prepared.package.platform,
        length=prepared.torrent.length,
        sha256=prepared.torrent.sha256,
        info_hash=prepared.torrent.info_hash,
        recipe=prepared.recipe,
    )
    known = releases.releases_of(state, channel)
    tried = list(make_deltas(repository, release, prepared.content, known, swarm=swarm, progress=progress))
    return (
        [each for each in tried if isinstance(each, MadeDelta)],
        {each.base.target: each.reason for each in tried if isinstance(each, Declined)},
    )


def _wants_deltas(package: Package) -> bool:
    return not package.mirrors if package.deltas is None else package.deltas


def _take(
    repository: Repository, prepared: Prepared, made: list[MadeDelta], added: list[dict[str, Any]]
) -> SigningState:
    torrent, package = prepared.torrent, prepared.package
    with repository.change() as state:
        before = releases.release_of(state, ChannelName(prepared.target.split("/")[0]), prepared.target)
        deltas = [each.delta for each in made]
        if _wants_deltas(package) and before is not None and before.deltas:
            deltas = list(before.deltas)
        sequence = package.sequence or releases.sequence_for(state, prepared.target)
        custom = ReleaseCustom(
            product=package.product,
            version=package.version,
            sequence=sequence,
            platform=package.platform,
            info_hash=torrent.info_hash,
            recipe=prepared.recipe,
            prerequisites=package.requires,
            mirrors=package.mirrors,
            deltas=deltas,
        )
        outcome = releases.put_release(
            state,
            prepared.target,
            custom,
            length=torrent.length,
            sha256=torrent.sha256,
            now=time_now(),
        )
        repository.take_content(prepared.content, torrent.torrent, torrent.info_hash)
        for each in made:
            repository.take_content(each.content, each.torrent.torrent, each.torrent.info_hash)
    added.append(
        {
            "target": prepared.target,
            "outcome": outcome,
            "path": package.path,
            "product": package.product,
            "version": package.version,
            "sequence": sequence,
            "platform": package.platform,
            "length": torrent.length,
            "sha256": torrent.sha256,
            "info_hash": torrent.info_hash,
            "deltas": [
                {"from": each.base.target, "length": each.delta.length, "info_hash": each.delta.info_hash}
                for each in made
            ],
        }
    )
    return state
