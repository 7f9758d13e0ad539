"""Which addresses of this machine are named to the other side."""

from __future__ import annotations

import ifaddr
import pytest

from p2pdist import limits
from p2pdist.net.rtc.addresses import host_addresses


def adapter(name: str, *addresses: str) -> ifaddr.Adapter:
    ips = [ifaddr.IP(address if "." in address else (address, 0, 0), 24, name) for address in addresses]
    return ifaddr.Adapter(name, name, ips)


def named(monkeypatch: pytest.MonkeyPatch, *adapters: ifaddr.Adapter) -> list[str]:
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    return list(host_addresses())


def test_addresses_of_both_families_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = adapter("eth0", "192.0.2.7", "2001:db8::7"), adapter("wlan0", "10.1.2.3")
    assert named(monkeypatch, *adapters) == ["192.0.2.7", "10.1.2.3", "2001:db8::7"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.1.1", "fe80::1"])
def test_what_nobody_else_reaches_is_not_named(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert named(monkeypatch, adapter("eth0", address)) == []


@pytest.mark.parametrize("name", ["docker0", "br-0123456789ab", "virbr0", "podman1", "cni0"])
def test_bridges_of_containers_are_not_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert named(monkeypatch, adapter(name, "172.17.0.1")) == []


@pytest.mark.parametrize("name", ["br0", "br-lan", "bridge0", "docker", "eth0.7"])
def test_other_bridges_are(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert named(monkeypatch, adapter(name, "192.168.1.1")) == ["192.168.1.1"]


def test_a_machine_with_many_addresses_names_the_first_of_each_family(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private = [f"2001:db8::{number}" for number in range(1, 40)]
    assert named(monkeypatch, adapter("eth0", *private, *private, "192.0.2.7")) == [
        "192.0.2.7",
        *private[: limits.PUNCH_HOSTS_MAX],
    ]
