"""May this release be installed on this device now, and if not, why not. Pure rules.

The order of the questions is the order of their weight: what can never be comes before what cannot be
yet, so that a device refuses a wrong release at once instead of waiting for something first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from p2pdist.errors import UsageError
from p2pdist.ids import SwarmName
from p2pdist.trust.catalog import Release
from p2pdist.trust.requirements import parse_prerequisite


@dataclass(frozen=True, slots=True, kw_only=True)
class Proceed:
    """Nothing stands against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlreadyInstalled:
    """There is nothing to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Not yet. ``swarm`` is the name that the device's certificate lacks, if that is the reason."""

    reason: str
    swarm: SwarmName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Never. ``kind`` is the kind of refusal to report besides the deployment's end."""

    kind: Literal["metadata", "rollback", "platform"]
    reason: str


Verdict: TypeAlias = Proceed | AlreadyInstalled | Wait | Refuse


def product_key(release: Release) -> str:
    """The name under which a device remembers a product: ``channel/product``."""
    return f"{release.channel}/{release.product}"


def assess(
    release: Release,
    *,
    objection: str,
    floor: int,
    installed: Mapping[str, int],
    swarm: SwarmName,
    swarms: Collection[str],
) -> Verdict:
    """Judge one release that the verified catalog holds.

    Args:
        release: The release.
        objection: Why this machine cannot install it; empty if it can.
        floor: The highest sequence of the product that was ever installed here; 0 for none.
        installed: ``channel/product`` to the sequence that is installed now.
        swarm: The swarm that the release's channel is distributed in.
        swarms: The swarms that this device's certificate names.
    """
    if objection:
        return Refuse(kind="platform", reason=objection)
    if installed.get(product_key(release)) == release.sequence:
        return AlreadyInstalled()
    if release.sequence < floor and not (
        release.rollback_from is not None and floor <= release.rollback_from
    ):
        return Refuse(
            kind="rollback",
            reason=f"{release.target} has sequence {release.sequence}, older than {floor} which was installed"
            " here, and no signature permits going back that far",
        )
    return _prerequisites(release, installed) or _admission(swarm, swarms)


def supersedes(newer: Release, older: Release) -> bool:
    """Whether a device that could install either should install *newer* only.

    A higher sequence does, unless the lower one is a signed way back from it.
    """
    if product_key(newer) != product_key(older):
        return False
    if newer.sequence < older.sequence:
        return newer.rollback_from is not None and older.sequence <= newer.rollback_from
    back = older.rollback_from is not None and newer.sequence <= older.rollback_from
    return newer.sequence > older.sequence and not back


def _prerequisites(release: Release, installed: Mapping[str, int]) -> Verdict | None:
    missing = []
    for text in release.prerequisites:
        try:
            product, least = parse_prerequisite(text)
        except UsageError:
            reason = f"{release.target} has a prerequisite that this version does not understand: {text!r}"
            return Refuse(kind="metadata", reason=reason)
        have = installed.get(f"{release.channel}/{product}", 0)
        if have < least:
            missing.append(f"{text} ({f'{have} is installed' if have else 'not installed'})")
    return Wait(reason=f"needs {', '.join(missing)} first") if missing else None


def _admission(swarm: SwarmName, swarms: Collection[str]) -> Verdict:
    if swarm in swarms:
        return Proceed()
    return Wait(reason=f"the certificate does not name the swarm {swarm} yet", swarm=swarm)
