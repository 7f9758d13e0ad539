"""What one device should have: deployments, swarms, and for a distribution point what to prefetch.

A deployment puts one target onto a group with all its subgroups, devices that join later included. Of
several deployments of one product that reach a device, the newest that fits its platform counts.

A point prefetches what counts for devices whose nearest point it is. It keeps, if it has it, what may count
for them again: a deployment that comes back when the newer one is stopped, the release below the one that is
deployed, and a signed way back from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from p2pdist.core.scope import covers, is_nearest
from p2pdist.ids import ChannelName, FleetName, GroupPath, NodeId, SwarmName, TargetPath, swarm_of
from p2pdist.trust.catalog import Release, SeedGrant
from p2pdist.wire.messages import Deployment

_KEEP_MAX = 1_000  # what a desired state carries


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment as the operator ordered it. ``number`` grows with each; a later one is newer.

    ``retries`` says of devices on which it failed how often another try was asked for.
    """

    id: str
    target: TargetPath
    group: GroupPath
    number: int
    retries: Mapping[NodeId, int] = msgspec.field(default_factory=dict)


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the admin server wants of one device: the part of a desired state that deployments decide."""

    deployments: tuple[Deployment, ...]
    swarms: tuple[SwarmName, ...]
    prefetch: tuple[TargetPath, ...]
    keep: tuple[TargetPath, ...]


def wishes_for(
    *,
    fleet: FleetName,
    node: NodeId,
    group: GroupPath,
    platform: str,
    grant: SeedGrant | None,
    orders: Iterable[Order],
    releases: Mapping[TargetPath, Release],
    scopes: Collection[GroupPath] = (),
) -> Wishes:
    """Compute what a device should have.

    Args:
        fleet: The fleet's name, for the swarms' names.
        node: The device.
        group: Where it stands.
        platform: What it runs, such as ``linux-x86_64``.
        grant: Its valid seed grant, if it is a distribution point.
        orders: Every deployment that has not been stopped.
        releases: What is signed now; a target that is not in it yet is still wished for.
        scopes: The scopes of all distribution points with a valid seed grant.
    """
    orders = sorted(orders, key=lambda order: order.number)
    own = orders_for(group=group, platform=platform, orders=orders, releases=releases)
    needed: list[TargetPath] = []
    keep: list[TargetPath] = []
    if grant is not None:
        served = [
            (order, place)
            for order in reversed(orders)
            if (place := _deeper(order.group, grant.scope))
            and ("gateway" in grant.duties or is_nearest(grant.scope, place, scopes))
        ]
        needed = list(
            dict.fromkeys(o.target for o, place in served if not _overtaken(o, place, orders, releases))
        )
        keep = [o.target for o, _ in served] + _ways_back(needed, releases)
    channels = dict.fromkeys(_channel(target) for target in [*(o.target for o in own), *needed])
    return Wishes(
        deployments=tuple(
            Deployment(id=o.id, target=o.target, order=o.number, retry=o.retries.get(node, 0)) for o in own
        ),
        swarms=tuple(sorted(swarm_of(channel, fleet) for channel in channels)),
        prefetch=tuple(needed),
        keep=tuple(target for target in dict.fromkeys(keep) if target not in needed)[:_KEEP_MAX],
    )


def orders_for(
    *, group: GroupPath, platform: str, orders: Iterable[Order], releases: Mapping[TargetPath, Release]
) -> list[Order]:
    """Return the deployments that count for a device in a group, oldest first; arguments as above."""
    chosen: dict[str, Order] = {}
    for order in sorted((o for o in orders if covers(o.group, group)), key=lambda order: order.number):
        product = _product(order.target)
        known = chosen.get(product)
        if known is not None and _fits(known, platform, releases) and not _fits(order, platform, releases):
            continue
        chosen[product] = order
    return sorted(chosen.values(), key=lambda order: order.number)


def _deeper(one: GroupPath, other: GroupPath) -> GroupPath | None:
    """The group in which everybody stands below both; None if nobody does."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


def _overtaken(
    order: Order, place: GroupPath, orders: Iterable[Order], releases: Mapping[TargetPath, Release]
) -> bool:
    """Whether a later deployment of the product takes the place of *order* on every device below *place*."""
    old = releases.get(order.target)
    return any(
        later.number > order.number
        and _product(later.target) == _product(order.target)
        and covers(later.group, place)
        and old is not None
        and (new := releases.get(later.target)) is not None
        and new.fits(old.platform)
        for later in orders
    )


def _ways_back(needed: Iterable[TargetPath], releases: Mapping[TargetPath, Release]) -> list[TargetPath]:
    """The release below each of *needed*, and those to which a signature permits to go back from it."""
    found: list[Release] = []
    for deployed in (releases[target] for target in needed if target in releases):
        below = sorted(
            (r for r in releases.values() if _is_below(r, deployed)), key=lambda r: (-r.sequence, r.target)
        )
        found += below[:1]
        found += [r for r in below if r.rollback_from is not None and r.rollback_from >= deployed.sequence]
    return [release.target for release in found]


def _is_below(release: Release, deployed: Release) -> bool:
    same = (release.channel, release.product) == (deployed.channel, deployed.product)
    return same and release.sequence < deployed.sequence and release.fits(deployed.platform)


def _fits(order: Order, platform: str, releases: Mapping[TargetPath, Release]) -> bool:
    release = releases.get(order.target)
    return release is None or release.fits(platform)


def _product(target: TargetPath) -> str:
    """``channel/product``."""
    return "/".join(target.split("/")[:2])


def _channel(target: TargetPath) -> ChannelName:
    return ChannelName(target.split("/", 1)[0])
