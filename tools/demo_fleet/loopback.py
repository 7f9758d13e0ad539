"""The demonstration's network on the loopback interface.

Every node listens on, and dials from, a loopback address of its own, so that its site can be read from
its address: the admin server is ``127.N.0.1``, the distribution point of site k ``127.N.k.1``, its
devices ``127.N.k.11`` and so on. N is the first number from 77 on that is free on this machine.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from demo_fleet.network import Machine, Network, Site
from demo_fleet.plan import API_PORT, LINK_PORT, SWARM_PORT, DemoError

_NETWORKS = range(77, 120)


@contextmanager
def open_loopback(*, sites: int, devices: int) -> Iterator[Network]:
    """Give the first free loopback network, which no other demonstration takes meanwhile.

    The claim is an abstract Unix socket: the kernel drops it when the process dies, however it dies. One
    that was left running with ``--keep`` has no process that claims, but its ports are taken.

    Raises:
        DemoError: this machine has none that is free.
    """
    for number in _NETWORKS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
            try:
                claim.bind(f"\0p2pdist-demo-{number}")
                _try_ports(f"127.{number}.0.1")
            except OSError:
                continue
            yield loopback_network(number, sites=sites, devices=devices)
            return
    raise DemoError(
        f"port {API_PORT}, {LINK_PORT} or {SWARM_PORT} is taken on all loopback addresses that were tried;"
        " end a demonstration that was left running with --keep"
    )


def loopback_network(number: int, *, sites: int, devices: int) -> Network:
    """Lay out the addresses ``127.NUMBER``."""

    def machine(third: int, fourth: int) -> Machine:
        return Machine(host=f"127.{number}.{third}.{fourth}", shared=True)

    return Network(
        name="loopback",
        server=machine(0, 1),
        operator=machine(0, 1),
        sites=tuple(
            Site(
                number=site,
                point=machine(site, 1),
                devices=tuple(machine(site, 10 + device) for device in range(1, devices + 1)),
                stranger=machine(250, site),
            )
            for site in range(1, sites + 1)
        ),
        outlive=lambda _: (),
    )


def _try_ports(host: str) -> None:
    """Raises OSError if a port of the admin server is taken."""
    for port in (API_PORT, LINK_PORT, SWARM_PORT):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
