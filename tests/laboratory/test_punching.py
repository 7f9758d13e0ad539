"""The theory against the laboratory: every pair of kinds, punched with plain sockets."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from laboratory.kinds import KINDS
from laboratory.measure import responding
from laboratory.network import Host, Laboratory
from laboratory.theory import Traffic, direct_path_possible, neighbours_path_possible

pytestmark = [pytest.mark.network, pytest.mark.slow]

PUNCHING = Path(__file__).with_name("punching.py")
LATE_S = 0.6
Pair = tuple[Host, Host]
PAIRS = list(itertools.combinations_with_replacement(KINDS, 2))


def punched(server: Host, named: dict[tuple[str, str], Pair]) -> dict[tuple[str, str], bool]:
    """Punch every pair at the same time; return by its name whether both ends got an answer.

    The first end of each pair starts late: what comes before must not spoil its own attempt.
    """
    pairs = {" and ".join(name): pair for name, pair in named.items()}
    hosts = {host.name: host for pair in pairs.values() for host in pair}
    with ExitStack() as stack:
        stack.enter_context(responding(server))
        processes = {
            name: stack.enter_context(_started(host, server, late, _paths_of(host, pairs)))
            for name, host in hosts.items()
            for late in [any(host is pair[0] for pair in pairs.values())]
        }
        endpoints = {name: json.loads(_read(process)) for name, process in processes.items()}
        for name, process in processes.items():
            peers = {path: endpoints[_peer(hosts[name], pairs[path]).name][path] for path in endpoints[name]}
            _write(process, peers)
        answered = {name: json.loads(_read(process)) for name, process in processes.items()}
    return {
        name: all(answered[host.name][" and ".join(name)] for host in pair) for name, pair in named.items()
    }


def _paths_of(host: Host, pairs: dict[str, Pair]) -> Sequence[str]:
    return [path for path, pair in pairs.items() if host in pair]


def _peer(host: Host, pair: Pair) -> Host:
    return pair[1] if pair[0] is host else pair[0]


def _started(host: Host, server: Host, late: bool, paths: Sequence[str]) -> subprocess.Popen[str]:
    command = host.command(sys.executable, "-S", str(PUNCHING))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    servers = [server.ipv4[0], *(server.ipv6[:1] if host.ipv6 else [])]
    late_s = LATE_S if late else 0.0
    _write(process, {"me": host.name, "late_s": late_s, "servers": servers, "paths": paths})
    return process


def _write(process: subprocess.Popen[str], value: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(value) + "\n")
    process.stdin.flush()


def _read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_pairs_and_neighbours_meet_exactly_where_the_theory_says_so() -> None:
    """Two places of each kind, one with two hosts: everybody there with everybody here, and the two."""
    with Laboratory() as laboratory:
        here = {name: laboratory.add(name, hosts=2).hosts for name in KINDS}
        there = {name: laboratory.add(name).hosts[0] for name in KINDS}
        pairs = {(left, right): (here[left][0], there[right]) for left, right in PAIRS}
        neighbours = {(name, "neighbours"): (here[name][0], here[name][1]) for name in KINDS}
        outcome = punched(laboratory.server, pairs | neighbours)
    expected = {
        (left, right): direct_path_possible(KINDS[left], KINDS[right], Traffic.SESSION)
        for left, right in PAIRS
    } | {(name, "neighbours"): neighbours_path_possible(kind) for name, kind in KINDS.items()}
    assert outcome == expected
