"""What one device should have."""

from __future__ import annotations

from p2pdist.core.desired import Order, Wishes, wishes_for
from p2pdist.ids import (
    ChannelName,
    FleetName,
    GroupPath,
    InfoHash,
    ProductName,
    TargetPath,
    node_id_of,
)
from p2pdist.trust.catalog import FileRecipe, Release, SeedGrant

ACME = FleetName("acme")


def order(number: int, target: str, group: str) -> Order:
    return Order(id=f"d{number}", target=TargetPath(target), group=GroupPath(group), number=number)


def release(target: str, platform: str) -> Release:
    channel, product, version, _ = target.split("/")
    return Release(
        target=TargetPath(target),
        channel=ChannelName(channel),
        product=ProductName(product),
        version=version,
        sequence=1,
        platform=platform,
        length=1,
        sha256="0" * 64,
        info_hash=InfoHash("0" * 64),
        recipe=FileRecipe(path="/etc/x"),
    )


def wishes(
    group: str, *orders: Order, grant: SeedGrant | None = None, releases: tuple[Release, ...] = ()
) -> Wishes:
    return wishes_for(
        fleet=ACME,
        group=GroupPath(group),
        platform="linux-x86_64",
        grant=grant,
        orders=orders,
        releases={r.target: r for r in releases},
    )


def seed_grant(scope: str) -> SeedGrant:
    return SeedGrant(
        node=node_id_of(b"p" * 32), duties=("seed",), scope=GroupPath(scope), addresses=(), expires=2**33
    )


def targets(found: Wishes) -> list[str]:
    return [d.target for d in found.deployments]


def test_a_deployment_reaches_its_group_and_all_subgroups_and_nobody_else() -> None:
    one = order(1, "stable/app/1/f", "/emea")
    assert targets(wishes("/emea/berlin", one)) == ["stable/app/1/f"]
    assert targets(wishes("/apac", one)) == []


def test_of_several_deployments_of_one_product_the_newest_counts() -> None:
    found = wishes("/emea", order(2, "stable/app/2/f", "/"), order(1, "stable/app/1/f", "/emea"))
    assert targets(found) == ["stable/app/2/f"]


def test_products_and_channels_do_not_replace_each_other() -> None:
    found = wishes(
        "/", order(1, "stable/app/1/f", "/"), order(2, "stable/tool/1/f", "/"), order(3, "beta/app/2/f", "/")
    )
    assert targets(found) == ["stable/app/1/f", "stable/tool/1/f", "beta/app/2/f"]


def test_a_newer_deployment_for_another_platform_does_not_displace_one_that_fits() -> None:
    releases = (release("stable/app/1/x64", "linux-x86_64"), release("stable/app/1/arm", "linux-aarch64"))
    orders = (order(1, "stable/app/1/x64", "/"), order(2, "stable/app/1/arm", "/"))
    assert targets(wishes("/", *orders, releases=releases)) == ["stable/app/1/x64"]


def test_a_device_may_join_the_swarms_of_its_channels_only() -> None:
    found = wishes("/", order(1, "stable/app/1/f", "/"), order(2, "beta/app/1/f", "/elsewhere"))
    assert found.swarms == ("stable.acme.swarm.p2pdist.internal",)


def test_a_point_prefetches_what_any_device_of_its_scope_needs_newest_first() -> None:
    orders = (
        order(1, "stable/app/1/f", "/"),
        order(2, "stable/tool/1/f", "/emea/berlin"),
        order(3, "stable/tool/9/f", "/apac"),
    )
    found = wishes("/servers", *orders, grant=seed_grant("/emea"))
    assert found.prefetch == ("stable/tool/1/f", "stable/app/1/f")
    assert targets(found) == ["stable/app/1/f"]


def test_a_device_without_a_grant_prefetches_nothing() -> None:
    assert wishes("/", order(1, "stable/app/1/f", "/")).prefetch == ()
