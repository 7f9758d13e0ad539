"""The way out: publish, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from p2pdist.errors import UsageError
from p2pdist.files import read_bounded
from p2pdist.ids import FleetName, swarm_of
from p2pdist.limits import ROOT_BYTES_MAX
from p2pdist.sign.keyring import PASSPHRASES, Keyring, PassphraseOptions, open_key
from p2pdist.sign.options import OPTIONS, Options, time_now
from p2pdist.swarm.torrents import check_torrent
from p2pdist.trust import publishing
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.trust.changes import current_keys
from p2pdist.trust.keys import SealedKeyFile
from p2pdist.trust.refusals import role_words


def publish(
    directory: Path,
    /,
    *,
    online_key: Path | None = None,
    leave_unfinished: bool = False,
    passphrases: PassphraseOptions = PASSPHRASES,
    options: Options = OPTIONS,
) -> None:
    """Write what is signed to a directory, for the admin server; a stock TUF client must accept it first.

    Every artifact is hashed on its way. Interrupted at any moment, the directory holds the old
    publication or the new one; call it again to finish.

        p2pdist-sign publish /srv/publication
        p2pdist publish /srv/publication    # hands it to the admin server

    Parameters
    ----------
    directory
        The publication's directory; made if it is not there.
    online_key
        The key file that signs snapshot and timestamp; by default the one beside the repository.
    leave_unfinished
        Publish what is complete although other drafts still lack signatures.
    """
    repository = options.open()
    state = repository.load()
    wanted = {key.keyid for key in current_keys(state, "online").keys}
    files = [SealedKeyFile.load(online_key)] if online_key else list(Keyring(repository).files.values())
    fitting = [file for file in files if file.keyid in wanted]
    if not fitting:
        raise UsageError("the online key is not within reach", hint="name its file: --online-key FILE")
    signer = open_key(fitting[0], passphrases)
    if signer is None:
        raise UsageError("the online key was not opened; nothing was published", hint="call it again")
    with options.progress() as progress:
        published = publishing.publish(
            repository,
            directory,
            signer,
            now=time_now(),
            leave_unfinished=leave_unfinished,
            progress=progress,
        )
    result = _described(published.catalog) | {
        "directory": str(directory),
        "artifacts_added": published.artifacts_added,
        "bytes_added": published.bytes_added,
        "unfinished": list(published.unfinished),
    }

    def render(console: Console) -> None:
        _print_catalog(console, f"published to {directory}", published.catalog)
        console.print(f"  new: {published.artifacts_added} artifacts, {published.bytes_added} bytes")
        for role in published.unfinished:
            console.print(f"  left out, for want of signatures: {role_words(role)}", markup=False)

    options.answer(result, render)


def verify(
    directory: Path, /, *, trusted_root: Path | None = None, fleet: str = "", options: Options = OPTIONS
) -> None:
    """Check a publication as a device would that has never seen anything: metadata, torrents, content.

    It needs no repository:

        p2pdist-sign verify /srv/publication
        p2pdist-sign verify /media/stick --fleet acme --trusted-root root.json

    Parameters
    ----------
    directory
        The publication's directory.
    trusted_root
        The root metadata from which trust starts; by default the publication's first.
    fleet
        The fleet's name, to check the swarms of the torrents; by default the repository's, if there is one.
    """
    name = fleet or (options.open().load().fleet if (options.repository / "current").is_symlink() else "")
    root = read_bounded(trusted_root, bytes_max=ROOT_BYTES_MAX) if trusted_root is not None else None

    def check(torrent: bytes, release: Release) -> None:
        if name:
            swarm = swarm_of(release.channel, FleetName(name))
            check_torrent(torrent, info_hash=release.info_hash, swarm=swarm, length=release.length)

    with options.progress() as progress:
        catalog = publishing.verify_publication(
            directory, now=time_now(), trusted_root=root, check_torrent=check, progress=progress
        )

    def render(console: Console) -> None:
        _print_catalog(console, f"{directory} verifies", catalog)
        if not name:
            console.print("  torrents were not compared with their swarm: say --fleet NAME")

    options.answer(
        _described(catalog) | {"directory": str(directory), "torrents_checked": bool(name)}, render
    )


def _described(catalog: Catalog) -> dict[str, Any]:
    return {
        "versions": dict(catalog.versions),
        "releases": sorted(catalog.releases),
        "grants": sorted(catalog.grants),
        "channels": list(catalog.channels),
        "expires": catalog.expires,
        "left_out": dict(catalog.left_out),
    }


def _print_catalog(console: Console, title: str, catalog: Catalog) -> None:
    console.print(f"{title}: accepted by a stock TUF client", markup=False)
    versions = ", ".join(f"{role} {version}" for role, version in sorted(catalog.versions.items()))
    console.print(f"  {versions}", markup=False)
    console.print(f"  {len(catalog.releases)} releases, {len(catalog.grants)} seed grants")
    for name, reason in catalog.left_out.items():
        console.print(f"  clients leave out {name}: {reason}", markup=False)
