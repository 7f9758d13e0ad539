"""Which machines an operator means."""

from __future__ import annotations

from typing import Any

import pytest

from p2pdist.cli import hosts
from p2pdist.cli.hosts import find_hosts, with_keys_of
from p2pdist.errors import UsageError
from p2pdist.wire import api as wire
from p2pdist.wire.installing import InstallHost

POINT = "p" * 32
KEY, OTHER = "SHA256:" + "a" * 43, "SHA256:" + "b" * 43


def device(
    name: str, address: str, *, state: Any = "unmanaged", group: str = "", network: str = POINT
) -> Any:
    seen = wire.FoundAddress(address=address, network=network, first=1, last=1)
    return wire.FoundInfo(
        id=f"id0{name}", name=name, state=state, node="", group=group, known_by="mac", names=[name], guid="",
        macs=[], addresses=[seen], platform="", unit="", services=[], methods=[], networks=[network], first=1,
        last=1,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def inventory(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What discovery has found."""
    found = [
        device("desk-1", "10.1.0.1", group="/desks"),
        device("desk-2", "10.1.0.2", group="/desks"),
        device("desk-3", "10.1.0.3", state="online", group="/desks"),
        device("printer", "10.1.1.1"),
        device("far", "10.9.0.1", network="q" * 32),
        device("near", "fe80::7"),
    ]
    monkeypatch.setattr(hosts, "all_found", lambda client: wire.FoundList(devices=found))
    return found


def find(*words: str, group: str = "", port: int = 22) -> list[InstallHost]:
    return find_hosts(None, words, network=POINT, group=group, port=port)  # type: ignore[arg-type]  # not asked


def named(*words: str, group: str = "/x") -> list[str]:
    return [host.id for host in find(*words, group=group)]


def test_a_discovered_device_is_reached_where_it_was_seen_and_stands_where_the_rules_say() -> None:
    desk = InstallHost(id="desk-1", address="10.1.0.1", group="/desks")
    assert find("desk-1") == find("id0desk-1") == [desk]


def test_a_range_and_a_pattern_mean_what_is_not_managed() -> None:
    assert named("10.1.0.0/24") == named("desk-*") == ["desk-1", "desk-2"]
    assert named("10.1.0.0/16", "desk-*") == ["desk-1", "desk-2", "printer"], "each once"


def test_who_is_named_is_meant_also_if_it_is_managed() -> None:
    assert named("desk-3") == ["desk-3"]


def test_an_address_needs_no_inventory_and_may_have_a_port() -> None:
    assert find("10.7.0.1", "10.7.0.2:2222", "fd00::7", "[fd00::8]:2222", group="/x", port=23) == [
        InstallHost(id="10.7.0.1", address="10.7.0.1", port=23, group="/x"),
        InstallHost(id="10.7.0.2:2222", address="10.7.0.2", port=2222, group="/x"),
        InstallHost(id="fd00::7", address="fd00::7", port=23, group="/x"),
        InstallHost(id="[fd00::8]:2222", address="fd00::8", port=2222, group="/x"),
    ]


def test_a_name_with_a_domain_is_a_host_that_nobody_has_discovered() -> None:
    assert find("new.corp.example", group="/x")[0].address == "new.corp.example"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nobody", "nothing that discovery has found"),
        ("10.1.0.0/33", "not a range"),
        ("far", "not seen by the node"),
        ("near", "where it could be reached"),
        ("10.7.0.1:0", "names no port"),
    ],
)
def test_what_names_nobody_is_said(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find(word, group="/x")


def test_where_no_rule_says_where_a_device_belongs_the_operator_has_to() -> None:
    with pytest.raises(UsageError, match="no rule says where printer belongs"):
        find("printer")


def test_keys_are_taken_from_a_run_where_they_were_good_or_not_known_and_never_where_they_had_changed() -> (
    None
):
    def item(subject: str, state: str, detail: str) -> wire.TaskItemInfo:
        return wire.TaskItemInfo(
            node=POINT, name="", subject=subject, state=state, step="", detail=detail, size_bytes=0, updated=1
        )

    run = wire.TaskRun(
        task="t", run=1, finished=True, nodes=[], items_total=3,
        items=[
            item("new", "failed", f"its key {KEY} is not known here"),
            item("good", "done", f"it is node x; its key is {KEY}"),
            item("changed", "failed", f"its key {KEY} is not the one that is pinned ({OTHER})"),
        ],
    )  # fmt: skip
    wanted = [InstallHost(id=name, address="10.0.0.1") for name in ("new", "good", "changed", "unseen")]
    assert [host.key for host in with_keys_of(run, wanted)] == [KEY, KEY, "", ""]
