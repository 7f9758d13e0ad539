"""Real NATs of Linux between a device and a gateway, in network namespaces."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import msgspec
import pytest

from p2pdist.wire.nat import Dependence, NatBehaviour

pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nftables"),
]

GATEWAYS = (("198.51.100.1", "198.51.100.2"), ("198.51.100.3",))  # with two addresses, and with one
DROP = "chain incoming { type filter hook input priority 0; iifname wan drop; }"
MASQUERADE = "chain leaving { type nat hook postrouting priority 100; oifname wan masquerade; }"
FORWARD = (
    "chain entering { type nat hook prerouting priority -100; %s udp dport 1024-65535 dnat to 10.0.0.5; }"
)


@dataclass(frozen=True)
class Router:
    """What a router does, as nftables says it, and what a device behind it should find."""

    rules: Sequence[str]
    mapping: Dependence | None = "endpoint-independent"
    filtering: Dependence = "address-and-port-dependent"
    hairpinning: bool | None = False


ROUTERS = {
    "masquerade": Router([MASQUERADE, DROP]),
    "random masquerade": Router(
        [MASQUERADE.replace("masquerade;", "masquerade random,fully-random;"), DROP],
        mapping="address-and-port-dependent",
    ),
    "every port forwarded": Router([MASQUERADE, FORWARD % "iifname wan"], filtering="endpoint-independent"),
    "ports forwarded from addresses that were spoken to": Router(
        [
            "set spoken { type ipv4_addr . inet_service; size 100; flags dynamic; }",
            "chain passing { type filter hook forward priority 0;",
            "iifname lan add @spoken { ip daddr . udp sport }; }",
            MASQUERADE,
            FORWARD % "iifname wan ip saddr . udp dport @spoken",
            DROP,
        ],
        filtering="address-dependent",
    ),
    "every port forwarded, with hairpinning": Router(
        [
            MASQUERADE.replace("oifname wan", "oifname { wan, lan }"),
            FORWARD % "ip daddr 198.51.100.0/24 fib daddr type local",
        ],
        filtering="endpoint-independent",
        hairpinning=True,
    ),
    "firewall": Router(
        ["chain passing { type filter hook forward priority 0; iifname wan ct state new drop; }"],
        hairpinning=None,
    ),
    "UDP blocked": Router(
        ["chain passing { type filter hook forward priority 0; meta l4proto udp drop; }"], mapping=None
    ),
}

SERVE = f"""
import trio
from p2pdist.net.stun import StunAddress, serve_stun
async def main():
    async with trio.open_nursery() as nursery:
        for hosts in {GATEWAYS}:
            await nursery.start(serve_stun, [StunAddress(bind=host) for host in hosts], (3478, 3479))
        print("serving", flush=True)
trio.run(main)
"""
PROBE = f"""
import msgspec, trio
from p2pdist.net.natprobe import probe_nat
from p2pdist.wire.stun import Endpoint
found = {{}}
async def probe(hosts):
    found[len(hosts)] = await probe_nat(Endpoint(hosts[0], 3478))
async def main():
    async with trio.open_nursery() as nursery:
        for hosts in {GATEWAYS}:
            nursery.start_soon(probe, hosts)
trio.run(main)
print(msgspec.json.encode(found).decode())
"""


def run(*words: str, text: str = "") -> None:
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def ip(line: str) -> None:
    run("ip", *line.split())


def started(stack: ExitStack, namespace: str, code: str) -> subprocess.Popen[str]:
    words = ["ip", "netns", "exec", namespace, sys.executable, "-c", code]
    process = stack.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    return process


def namespace(stack: ExitStack, name: str) -> str:
    ip(f"netns add {name}")
    stack.callback(ip, f"netns del {name}")
    ip(f"-n {name} link set lo up")
    return name


def site(stack: ExitStack, prefix: str, number: int, router: Router) -> str:
    """Build a router at the gateway's bridge and a device behind it; return the device's namespace."""
    inside, between = namespace(stack, f"{prefix}d{number}"), namespace(stack, f"{prefix}r{number}")
    ip(f"-n {prefix}g link add wan{number} type veth peer name wan netns {between}")
    ip(f"-n {prefix}g link set wan{number} master bridge up")
    ip(f"-n {between} addr add 198.51.100.{10 + number}/24 dev wan")
    ip(f"-n {between} link add lan type veth peer name lan netns {inside}")
    ip(f"-n {between} addr add 10.0.0.1/24 dev lan")
    ip(f"-n {inside} addr add 10.0.0.5/24 dev lan")
    for where, device in ((between, "wan"), (between, "lan"), (inside, "lan")):
        ip(f"-n {where} link set {device} up")
    ip(f"-n {inside} route add default via 10.0.0.1")
    if router.rules == ROUTERS["firewall"].rules:  # there, the gateway must know the way in
        ip(f"-n {prefix}g route add 10.0.0.0/24 via 198.51.100.{10 + number}")
    run("ip", "netns", "exec", between, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    rules = "\n".join(["table ip lab {", *router.rules, "}\n"])
    run("ip", "netns", "exec", between, "nft", "-f", "-", text=rules)
    return inside


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, dict[int, NatBehaviour]]]:
    """Build every router with a device behind it, and let all devices look at both gateways at once.

    Return what they found, by the router's name and by how many addresses the gateway has.
    """
    prefix = f"stun{os.getpid() % 100_000}"
    with ExitStack() as stack:
        gateway = namespace(stack, f"{prefix}g")
        ip(f"-n {gateway} link add bridge type bridge")
        for host in itertools.chain(*GATEWAYS):
            ip(f"-n {gateway} addr add {host}/24 dev bridge")
        ip(f"-n {gateway} link set bridge up")
        devices = {
            name: site(stack, prefix, number, router) for number, (name, router) in enumerate(ROUTERS.items())
        }
        serving = started(stack, gateway, SERVE)
        assert serving.stdout is not None
        assert serving.stdout.readline() == "serving\n"
        probing = {name: started(stack, device, PROBE) for name, device in devices.items()}
        yield {
            name: msgspec.json.decode(process.communicate(timeout=30)[0], type=dict[int, NatBehaviour])
            for name, process in probing.items()
        }


def visible(truth: Dependence, addresses: int) -> tuple[Dependence, ...]:
    """What theory lets anybody see: from one address, only whether the port matters."""
    if addresses == 2 or truth == "address-and-port-dependent":
        return (truth,)
    return ("endpoint-independent", "address-dependent")


@pytest.mark.parametrize("addresses", [1, 2])
@pytest.mark.parametrize("name", ROUTERS)
def test_a_real_nat_is_seen_as_what_it_is(
    found: dict[str, dict[int, NatBehaviour]], name: str, addresses: int
) -> None:
    router, behaviour = ROUTERS[name], found[name][addresses]
    if router.mapping is None:
        assert not behaviour.udp
        return
    assert behaviour.translated == (name != "firewall")
    if behaviour.translated:
        assert behaviour.mapping == visible(router.mapping, addresses)
    assert behaviour.filtering == visible(router.filtering, addresses)
    assert behaviour.hairpinning == router.hairpinning
    assert behaviour.addresses == addresses
