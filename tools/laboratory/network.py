"""A laboratory: the core, a server, and places. The entrance to all of this."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

from laboratory.core import Core, Uplink, harden, uplink_lines
from laboratory.kinds import KINDS, Kind
from laboratory.namespaces import LaboratoryError, Namespaces
from laboratory.places import Host, Place

__all__ = ["Host", "Laboratory", "LaboratoryError", "Place", "Uplink", "kind_named"]


class Laboratory:
    """A network that is there inside a ``with`` and gone after it, with every program in it.

    Use it from any thread, but only from one at a time; building takes about a tenth of a second for a place.
    LaboratoryError says why it cannot be built, before anything is (:func:`laboratory.namespaces.why_not`).
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.places: list[Place] = []

    def __enter__(self) -> Laboratory:
        with ExitStack() as stack:
            self._namespaces = stack.enter_context(Namespaces())
            self._core = Core(self._namespaces)
            self.server = self._build_server()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, kind: str | Kind, hosts: int = 1, uplink: Uplink | None = None) -> Place:
        """Build a place with so many hosts, on a line of its own to the internet."""
        known = kind if isinstance(kind, Kind) else kind_named(kind)
        name = f"{known.name}{len(self.places) + 1}"
        place = Place(known, name, hosts, uplink, self._core, self._namespaces)
        self.places.append(place)
        return place

    def outlive(self, label: str) -> int:
        """Let the network live on after this program; see :meth:`Namespaces.outlive`."""
        return self._namespaces.outlive(label)

    def _build_server(self) -> Host:
        """A host with two addresses of each family, so that it can answer from another one (RFC 5780)."""
        namespace = self._namespaces.create("server")
        harden(namespace)
        link = self._core.attach(namespace, "eth0")
        addresses = self._core.addresses(2)
        namespace.ip(*uplink_lines("eth0", *(address for pair in addresses for address in pair)))
        for pair in addresses:
            for address in pair:
                self._core.route(address, link)
        return Host(namespace, tuple(ipv4 for ipv4, _ in addresses), tuple(ipv6 for _, ipv6 in addresses))


def kind_named(name: str) -> Kind:
    """Return the kind of this name; LaboratoryError names them all if there is none."""
    if name not in KINDS:
        raise LaboratoryError(f"there is no kind of place '{name}'; there are {', '.join(KINDS)}")
    return KINDS[name]
