"""Where the fleet's programs run, and on which addresses.

This is all that differs between the demonstration on loopback addresses (:mod:`demo_fleet.loopback`) and
the one in a laboratory of networks (:mod:`demo_fleet.lab`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where one program of the fleet runs.

    Attributes:
        host: Its address.
        enter: What stands before a command line that runs there; nothing where that is here.
        shared: Whether others have the same network stack, so that each keeps to its own address.
    """

    host: str
    enter: tuple[str, ...] = ()
    shared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site: its distribution point, its devices, and somebody who does not belong there.

    Attributes:
        number: From 1.
        kind: What stands between it and the admin server; empty is nothing.
        summary: The same in a sentence.
        gateway_dialled: Whether the admin server dials the point, which may dial nobody.
        bare: Machines that have no agent yet; each comes with its own SSH server.
    """

    number: int
    point: Machine
    devices: tuple[Machine, ...]
    stranger: Machine
    kind: str = ""
    summary: str = ""
    gateway_dialled: bool = False
    bare: tuple[Machine, ...] = ()

    @property
    def hidden(self) -> bool:
        """Whether the admin server sees nothing of it but its point."""
        return self.kind not in ("", "open")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The machines of the demonstration.

    Attributes:
        name: What it is called in the outcome.
        server: The admin server's.
        operator: Where the operator's command line runs.
        outlive: Lets the network outlive this program; given a word for its command line, it returns the
            processes that hold the network until somebody ends them.
        vendor: Where the vendor of a product has a mirror; there is none where it is not in a laboratory.
    """

    name: str
    server: Machine
    operator: Machine
    sites: tuple[Site, ...]
    outlive: Callable[[Path], Sequence[int]]
    vendor: Machine | None = None
