"""Which releases a reading of mirrors is about, and which content does not come from the admin server. Pure.

A target that stands in the work as it is names one release. A pattern names the newest release of each
product and platform that it fits and that has mirrors: ``stable/app/*``, ``stable/*``. As long as a node is
to read a release from its mirrors, and the admin server is not, nobody is served its content by the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from p2pdist.core.desired import Wishes
from p2pdist.ids import FleetName, InfoHash, NodeId, TargetPath, swarm_of
from p2pdist.trust.catalog import Release
from p2pdist.wire.mirroring import ReadMirrors

_PREFETCH_MAX = 1_000  # what a desired state carries


class Chosen(NamedTuple):
    """The releases, in the order in which everybody reads them; and the targets that name none."""

    releases: tuple[Release, ...]
    unknown: tuple[str, ...]


def is_pattern(target: str) -> bool:
    """Whether a target of the work stands for whatever fits it."""
    return any(each in target for each in "*?[")


def fits(targets: Iterable[str], target: str) -> bool:
    """Whether a target path is one of *targets*, or fits a pattern among them."""
    return any(fnmatchcase(target, each) if is_pattern(each) else target == each for each in targets)


def choose(targets: Iterable[str], releases: Mapping[TargetPath, Release]) -> Chosen:
    """Find the releases that the targets of a reading name, each artifact once.

    Args:
        targets: Target paths and patterns.
        releases: What is signed.
    """
    found: dict[InfoHash, Release] = {}
    unknown = []
    for target in targets:
        if is_pattern(target):
            chosen = _newest(target, releases)
        else:
            release = releases.get(TargetPath(target))
            chosen = [release] if release is not None else []
        if not chosen:
            unknown.append(target)
        for each in chosen:
            found.setdefault(each.info_hash, each)
    return Chosen(tuple(sorted(found.values(), key=lambda each: each.target)), tuple(unknown))


def reads(
    works: Mapping[NodeId, Sequence[ReadMirrors]], releases: Mapping[TargetPath, Release]
) -> dict[NodeId, tuple[Release, ...]]:
    """Return which releases each node is to read now, those with mirrors."""
    return {
        node: tuple(
            release
            for release in choose((t for work in assigned for t in work.targets), releases).releases
            if release.mirrors
        )
        for node, assigned in works.items()
    }


def withheld(reading: Mapping[NodeId, Iterable[Release]], server: NodeId) -> frozenset[InfoHash]:
    """Return the artifacts that the admin server does not serve, for nodes read them from mirrors.

    Args:
        reading: What each node reads.
        server: The admin server, which may be one of them: then it passes on what it reads.
    """
    own = {release.info_hash for release in reading.get(server, ())}
    others = {release.info_hash for releases in reading.values() for release in releases}
    return frozenset(others - own)


def wish_for(wishes: Wishes, reading: Iterable[Release], fleet: FleetName) -> Wishes:
    """Add to what a point should have what it reads from mirrors: it is in these swarms, and holds them."""
    reading = tuple(reading)
    swarms = {swarm_of(release.channel, fleet) for release in reading}
    targets = dict.fromkeys([*wishes.prefetch, *(release.target for release in reading)])
    return msgspec.structs.replace(
        wishes,
        swarms=tuple(sorted({*wishes.swarms, *swarms})),
        prefetch=tuple(targets)[:_PREFETCH_MAX],
        keep=tuple(target for target in wishes.keep if target not in targets),
    )


def _newest(pattern: str, releases: Mapping[TargetPath, Release]) -> list[Release]:
    newest: dict[tuple[str, str, str], Release] = {}
    for release in releases.values():
        if release.mirrors and fnmatchcase(release.target, pattern):
            key = (release.channel, release.product, release.platform)
            known = newest.get(key)
            if known is None or known.sequence < release.sequence:
                newest[key] = release
    return list(newest.values())
