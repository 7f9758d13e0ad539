"""The demonstration's network in a laboratory: four sites, each behind something else.

The admin server and the operator stand in the open. The point of a site stands where its devices do, and
dials out; in a DMZ it stands in the zone, where it is dialled from both sides and may dial nobody. Two sites
have machines without an agent, if this program may make some; a vendor has a mirror in the open.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from laboratory.machines import why_no_machines
from laboratory.network import Host, Laboratory, LaboratoryError, Place
from laboratory.places import HOSTS_MAX

from demo_fleet.network import Machine, Network, Site
from demo_fleet.plan import DemoError

KINDS = ("open", "port-restricted", "symmetric", "dmz")
"""What stands between each site and the admin server."""

BARE = {"port-restricted": 2, "symmetric": 1}
"""How many machines without an agent stand at the sites of a kind."""

DEVICES_MAX = HOSTS_MAX - 2 - max(BARE.values())
"""Devices of a site: its point, a stranger and the bare machines need their places, too."""


@contextmanager
def open_lab(*, devices: int) -> Iterator[Network]:
    """Build the laboratory; it is gone after the block, with every program in it, unless it was left.

    Raises:
        DemoError: it cannot be built here; says what lacks.
    """
    try:
        with Laboratory() as laboratory:
            operator = laboratory.add("open").hosts[0]
            vendor = laboratory.add("open").hosts[0]
            bare = {} if why_no_machines() else BARE
            sites = [
                _site(number, laboratory.add(kind, hosts=devices + 2 + bare.get(kind, 0)), bare.get(kind, 0))
                for number, kind in enumerate(KINDS, 1)
            ]
            yield Network(
                name="lab",
                server=_machine(laboratory.server),
                operator=_machine(operator),
                sites=tuple(sites),
                outlive=lambda directory: [laboratory.outlive(str(directory))],
                vendor=_machine(vendor),
            )
    except LaboratoryError as error:
        raise DemoError(
            f"no laboratory of networks here: {error}\n"
            "It takes root or user namespaces, and the packages iproute2, nftables and conntrack;"
            " tools/demo without --network lab needs none of them."
        ) from error


def _site(number: int, place: Place, bare: int) -> Site:
    point, stranger, *others = map(_machine, place.hosts)
    devices, without = others[: len(others) - bare], others[len(others) - bare :]
    return Site(
        number=number,
        point=point,
        devices=tuple(devices),
        stranger=stranger,
        kind=place.kind.name,
        summary=place.kind.summary,
        gateway_dialled=place.kind.name == "dmz",
        bare=tuple(without),
    )


def _machine(host: Host) -> Machine:
    return Machine(host=host.ipv4[0], enter=tuple(host.command()))
