"""What one device should have: deployments, swarms, and for a distribution point what to prefetch.

A deployment puts one target onto a group with all its subgroups, devices that join later included. Of
several deployments of one product that reach a device, the newest that fits its platform counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from p2pdist.core.scope import covers
from p2pdist.ids import ChannelName, FleetName, GroupPath, SwarmName, TargetPath, swarm_of
from p2pdist.trust.catalog import Release, SeedGrant
from p2pdist.wire.messages import Deployment


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment as the operator ordered it. ``number`` grows with each; a later one is newer."""

    id: str
    target: TargetPath
    group: GroupPath
    number: int


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the admin server wants of one device: the part of a desired state that deployments decide."""

    deployments: tuple[Deployment, ...]
    swarms: tuple[SwarmName, ...]
    prefetch: tuple[TargetPath, ...]


def wishes_for(
    *,
    fleet: FleetName,
    group: GroupPath,
    platform: str,
    grant: SeedGrant | None,
    orders: Iterable[Order],
    releases: Mapping[TargetPath, Release],
) -> Wishes:
    """Compute what a device should have.

    Args:
        fleet: The fleet's name, for the swarms' names.
        group: Where the device stands.
        platform: What it runs, such as ``linux-x86_64``.
        grant: Its valid seed grant, if it is a distribution point.
        orders: Every deployment that has not been stopped.
        releases: What is signed now; a target that is not in it yet is still wished for.
    """
    orders = sorted(orders, key=lambda order: order.number)
    own = _newest([o for o in orders if covers(o.group, group)], platform, releases)
    needed: list[TargetPath] = []
    if grant is not None:
        reached = [o for o in orders if covers(o.group, grant.scope) or covers(grant.scope, o.group)]
        needed = list(dict.fromkeys(order.target for order in reversed(reached)))
    channels = dict.fromkeys(_channel(target) for target in [*(o.target for o in own), *needed])
    return Wishes(
        deployments=tuple(Deployment(id=o.id, target=o.target, order=o.number) for o in own),
        swarms=tuple(sorted(swarm_of(channel, fleet) for channel in channels)),
        prefetch=tuple(needed),
    )


def _newest(orders: list[Order], platform: str, releases: Mapping[TargetPath, Release]) -> list[Order]:
    chosen: dict[tuple[str, str], Order] = {}
    for order in orders:
        channel, product = order.target.split("/")[:2]
        known = chosen.get((channel, product))
        if known is not None and _fits(known, platform, releases) and not _fits(order, platform, releases):
            continue
        chosen[channel, product] = order
    return sorted(chosen.values(), key=lambda order: order.number)


def _fits(order: Order, platform: str, releases: Mapping[TargetPath, Release]) -> bool:
    release = releases.get(order.target)
    return release is None or release.fits(platform)


def _channel(target: TargetPath) -> ChannelName:
    return ChannelName(target.split("/", 1)[0])
