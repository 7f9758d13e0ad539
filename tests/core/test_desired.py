"""What one device should have."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.desired import Order, Wishes, wishes_for
from p2pdist.core.scope import covers, points_for
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
DEVICE = node_id_of(b"d" * 32)


def order(number: int, target: str, group: str) -> Order:
    return Order(id=f"d{number}", target=TargetPath(target), group=GroupPath(group), number=number)


def release(
    target: str, platform: str = "any", *, sequence: int = 1, rollback_from: int | None = None
) -> Release:
    channel, product, version, _ = target.split("/")
    return Release(
        target=TargetPath(target),
        channel=ChannelName(channel),
        product=ProductName(product),
        version=version,
        sequence=sequence,
        rollback_from=rollback_from,
        platform=platform,
        length=1,
        sha256="0" * 64,
        info_hash=InfoHash("0" * 64),
        recipe=FileRecipe(path="/etc/x"),
    )


def wishes(
    group: str,
    *orders: Order,
    grant: SeedGrant | None = None,
    releases: tuple[Release, ...] = (),
    scopes: tuple[str, ...] = (),
    platform: str = "linux-x86_64",
) -> Wishes:
    return wishes_for(
        fleet=ACME,
        node=DEVICE,
        group=GroupPath(group),
        platform=platform,
        grant=grant,
        orders=orders,
        releases={r.target: r for r in releases},
        scopes=[GroupPath(scope) for scope in scopes],
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


def test_a_point_leaves_to_a_nearer_point_what_only_its_devices_need() -> None:
    orders = (order(1, "stable/app/1/f", "/emea/berlin"), order(2, "stable/tool/1/f", "/emea"))
    found = wishes("/", *orders, grant=seed_grant("/emea"), scopes=("/emea", "/emea/berlin"))
    assert found.prefetch == ("stable/tool/1/f",)
    alternative = wishes("/", *orders, grant=seed_grant("/emea"), scopes=("/emea", "/apac"))
    assert set(alternative.prefetch) == {"stable/app/1/f", "stable/tool/1/f"}


def test_a_point_keeps_the_deployment_that_a_newer_one_replaces_and_does_not_fetch_it() -> None:
    releases = tuple(release(f"stable/app/{n}/f", sequence=n) for n in (1, 2))
    orders = [order(n, f"stable/app/{n}/f", "/emea") for n in (1, 2)]
    found = wishes("/", *orders, grant=seed_grant("/emea"), releases=releases)
    assert (found.prefetch, found.keep) == (("stable/app/2/f",), ("stable/app/1/f",))


def test_a_deployment_that_reaches_more_devices_than_the_newer_one_is_still_fetched() -> None:
    releases = tuple(release(f"stable/app/{n}/f", sequence=n) for n in (1, 2))
    orders = (order(1, "stable/app/1/f", "/emea"), order(2, "stable/app/2/f", "/emea/berlin"))
    found = wishes("/", *orders, grant=seed_grant("/emea"), releases=releases)
    assert set(found.prefetch) == {"stable/app/1/f", "stable/app/2/f"}


def test_a_point_keeps_the_release_below_the_deployed_one_and_signed_ways_back() -> None:
    releases = (
        release("stable/app/1/f", sequence=1),
        release("stable/app/2/back", sequence=2, rollback_from=9),
        release("stable/app/3/f", sequence=3),
        release("stable/app/4/f", sequence=4),
        release("stable/other/3/f", sequence=3),
    )
    found = wishes("/", order(1, "stable/app/4/f", "/emea"), grant=seed_grant("/emea"), releases=releases)
    assert found.keep == ("stable/app/3/f", "stable/app/2/back")


GROUPS = ("/", "/a", "/a/b", "/a/b/c", "/d")
PLATFORMS = ("any", "linux", "linux-x86_64", "linux-aarch64")


@given(
    st.lists(st.tuples(st.sampled_from("123456"), st.sampled_from(GROUPS)), max_size=6),
    st.lists(st.sampled_from(PLATFORMS), min_size=6, max_size=6),
    st.lists(st.sampled_from(GROUPS), min_size=1, max_size=3),
    st.integers(0, 6),
)
def test_a_point_prefetches_what_devices_get_whose_nearest_point_it_is_and_nothing_for_others(
    ordered: list[tuple[str, str]], platforms: list[str], scopes: list[str], signed: int
) -> None:
    orders = [order(n, f"stable/app/{version}/f", group) for n, (version, group) in enumerate(ordered)]
    releases = tuple(
        release(f"stable/app/{n + 1}/f", platforms[n], sequence=n + 1) for n in range(6) if n < signed
    )
    grant = seed_grant(scopes[0])
    found = wishes("/points", *orders, grant=grant, releases=releases, scopes=tuple(scopes))
    others = [
        SeedGrant(
            node=node_id_of(bytes([n]) * 32),
            duties=("seed",),
            scope=GroupPath(scope),
            addresses=(),
            expires=2**33,
        )
        for n, scope in enumerate(scopes[1:])
    ]
    served = [GroupPath(g) for g in GROUPS if grant in points_for(GroupPath(g), [grant, *others], 0)]
    for group in served:
        for platform in ("linux-x86_64", "linux-aarch64", "windows-x86_64"):
            device = wishes(group, *orders, releases=releases, platform=platform)
            assert set(targets(device)) <= set(found.prefetch)
    reaching = {o.target for o in orders if any(covers(o.group, group) for group in served)}
    assert set(found.prefetch) <= reaching
    assert not set(found.keep) & set(found.prefetch)


def test_a_device_hears_of_the_tries_that_were_asked_of_it_and_no_other() -> None:
    other = node_id_of(b"o" * 32)
    tried = msgspec.structs.replace(order(1, "stable/app/1/f", "/"), retries={DEVICE: 3, other: 7})
    assert [d.retry for d in wishes("/a", tried).deployments] == [3]
    assert [d.retry for d in wishes("/a", order(1, "stable/app/1/f", "/")).deployments] == [0]
