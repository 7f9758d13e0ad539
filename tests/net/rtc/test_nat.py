"""Through real NAT: two devices behind routers of their own, and a STUN responder between them.

::

    device 1 --- router 1 --- core with the responder --- router 2 --- device 2
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest
import trio

from p2pdist.net.endpoints import format_endpoint

HERE = Path(__file__).parent
PREFIX = f"p2pr{os.getpid()}"
CORE = f"{PREFIX}-core"
PEER = "punching_peer.py"

pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"),
        reason="makes network namespaces with NAT",
    ),
]

RULES = """
table ip nat {{
    chain input {{ type filter hook input priority 0; iifname "wan" ct state new drop; }}
    chain forward {{ type filter hook forward priority 0; iifname "wan" ct state new drop; }}
    chain postrouting {{ type nat hook postrouting priority 100; oifname "wan" masquerade {flags}; }}
}}
"""
FIREWALL = """
table ip6 firewall {
    chain forward { type filter hook forward priority 0; iifname "wan" ct state new drop; }
}
"""
LOSS = """
table ip loss {
    chain forward { type filter hook forward priority 0; numgen inc mod 20 == 0 drop; }
}
"""
CONE, SYMMETRIC = "", "random,fully-random"


def run(*command: str, said: str | None = None) -> None:
    done = subprocess.run(command, input=said, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def within(namespace: str, *command: str, said: str | None = None) -> None:
    run("ip", "netns", "exec", namespace, *command, said=said)


@contextmanager
def namespace(name: str) -> Iterator[str]:
    run("ip", "netns", "add", name)
    try:
        within(name, "ip", "link", "set", "lo", "up")
        within(name, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        yield name
    finally:
        run("ip", "netns", "delete", name)


def cable(one: str, port: str, address: str, other: str, other_port: str, other_address: str) -> None:
    within(one, "ip", "link", "add", port, "type", "veth", "peer", "name", other_port, "netns", other)
    for where, device, own in ((one, port, address), (other, other_port, other_address)):
        within(where, "ip", "address", "add", own, "dev", device, *(["nodad"] if ":" in own else []))
        within(where, "ip", "link", "set", device, "up")


@contextmanager
def network(*nats: str) -> Iterator[None]:
    """Build the network; each device is behind the kind of NAT that it is given."""
    with ExitStack() as stack:
        stack.enter_context(namespace(CORE))
        for number, flags in enumerate(nats, 1):
            router = stack.enter_context(namespace(f"{PREFIX}-router{number}"))
            device = stack.enter_context(namespace(f"{PREFIX}-device{number}"))
            cable(CORE, f"r{number}", f"198.51.{number}.1/30", router, "wan", f"198.51.{number}.2/30")
            cable(router, "lan", "10.0.0.1/24", device, "eth0", "10.0.0.2/24")
            within(router, "ip", "route", "add", "default", "via", f"198.51.{number}.1")
            within(device, "ip", "route", "add", "default", "via", "10.0.0.1")
            within(router, "nft", "-f", "-", said=RULES.format(flags=flags))
        yield


@contextmanager
def network_of_firewalls() -> Iterator[None]:
    """Build the network with IPv6; each router lets out everything, and in what was asked for."""
    with ExitStack() as stack:
        stack.enter_context(namespace(CORE))
        for number in (1, 2):
            router = stack.enter_context(namespace(f"{PREFIX}-router{number}"))
            device = stack.enter_context(namespace(f"{PREFIX}-device{number}"))
            outside, inside = f"2001:db8:f{number}:", f"2001:db8:{number}:"
            cable(CORE, f"r{number}", f"{outside}:1/64", router, "wan", f"{outside}:2/64")
            cable(router, "lan", f"{inside}:1/64", device, "eth0", f"{inside}:2/64")
            within(CORE, "ip", "route", "add", f"{inside}:/64", "via", f"{outside}:2")
            within(router, "ip", "route", "add", "default", "via", f"{outside}:1")
            within(device, "ip", "route", "add", "default", "via", f"{inside}:1")
            within(router, "nft", "-f", "-", said=FIREWALL)
        yield


@asynccontextmanager
async def program(where: str, *command: str) -> AsyncIterator[trio.Process]:
    """Run one of the programs beside this file in a namespace."""
    line = ["ip", "netns", "exec", where, sys.executable, str(HERE / command[0]), *command[1:]]
    process = await trio.lowlevel.open_process(line, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()


async def read_line(process: trio.Process) -> str:
    line = bytearray()
    assert process.stdout is not None
    while not line.endswith(b"\n"):
        part = await process.stdout.receive_some(1)
        assert part, "the process has ended"
        line += part
    return line.decode().strip()


async def say(process: trio.Process, line: str) -> None:
    assert process.stdin is not None
    await process.stdin.send_all(line.encode() + b"\n")


@asynccontextmanager
async def punching(
    *hosts: str, server: str, limit_s: str = "10", work: Sequence[str] = ("idle", "idle")
) -> AsyncIterator[tuple[trio.Process, trio.Process]]:
    """Have both devices punch, each from its address."""
    asked = f"{limit_s} {format_endpoint(server, 3478)}".split()
    with trio.fail_after(60):
        async with (
            program(CORE, "padded_responder.py", server, "3478") as responder,
            program(f"{PREFIX}-device1", PEER, "controlling", work[0], hosts[0], *asked) as one,
            program(f"{PREFIX}-device2", PEER, "controlled", work[1], hosts[1], *asked) as other,
        ):
            assert await read_line(responder) == "ready"
            assert [await read_line(one), await read_line(other)] == ["ready", "ready"]
            await say(one, "go")
            await say(other, "go")
            descriptions = [await read_line(one), await read_line(other)]
            await say(one, descriptions[1])
            await say(other, descriptions[0])
            yield one, other


async def test_two_port_restricted_cones_connect_through_a_padded_responder() -> None:
    with network(CONE, CONE):
        async with punching("10.0.0.2", "10.0.0.2", server="198.51.1.1") as devices:
            for device in devices:
                outcome = (await read_line(device)).split()
                assert outcome[0] == "open"
                assert set(outcome[1:3]) <= {"srflx", "prflx"}, "each side sees the other's NAT"


async def test_two_stateful_firewalls_of_ipv6_let_them_connect() -> None:
    with network_of_firewalls():
        async with punching("2001:db8:1::2", "2001:db8:2::2", server="2001:db8:f1::1") as devices:
            for device in devices:
                assert (await read_line(device)).startswith("open host host")


async def test_two_symmetric_nats_do_not_and_it_says_why() -> None:
    with network(SYMMETRIC, SYMMETRIC):
        async with punching("10.0.0.2", "10.0.0.2", server="198.51.1.1", limit_s="4") as devices:
            for device in devices:
                assert (await read_line(device)).startswith("failed no pair of addresses let packets through")


async def test_everything_arrives_where_every_twentieth_packet_is_lost() -> None:
    with network(CONE, CONE):
        within(CORE, "nft", "-f", "-", said=LOSS)
        async with punching("10.0.0.2", "10.0.0.2", server="198.51.1.1", work=("send", "count")) as (
            _,
            counting,
        ):
            assert (await read_line(counting)).startswith("open")
            assert await read_line(counting) == "received 500000"
