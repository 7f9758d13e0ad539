"""Bare machines for tests, in one network with an address each, as :mod:`laboratory.machines` makes them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from laboratory import machines
from laboratory.machines import why_no_machines
from laboratory.namespaces import Namespace, Namespaces

from p2pdist.duties.deploy.protocol import Host

PASSWORD = f"correct-horse-{secrets.token_hex(6)}"  # of no other process of these tests, for :func:`holding`
OPERATOR = "bare-operator"

needs_machines = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_machines()), reason=why_no_machines()),
]


class BareMachine(machines.BareMachine):
    """One with the accounts that tests use."""

    def __init__(
        self, directory: Path, address: str, within: Callable[..., list[str]], *, size: str = "600m"
    ) -> None:
        super().__init__(
            directory, address, within, name=directory.name, user=OPERATOR, password=PASSWORD, size=size
        )

    def host(self, name: str, **fields: object) -> Host:
        """Return what somebody who knows it says of it."""
        fields = {"key": self.key, "token": f"token-of-{name}", **fields}
        return Host(id=name, address=self.address, **fields)  # type: ignore[arg-type]  # by name


class Machines:
    """Makes machines in one network. ``within`` makes a command line one that runs in that network."""

    def __init__(self, directory: Path, namespace: Namespace) -> None:
        self._directory = directory
        self.namespace = namespace
        self._made: list[BareMachine] = []
        self.within = namespace.command

    def add(self, *, size: str = "600m") -> BareMachine:
        """Make one more."""
        number = len(self._made) + 1
        address = f"10.99.0.{number}"
        self.namespace.ip(f"address add {address}/32 dev lo")
        machine = BareMachine(self._directory / f"machine{number}", address, self.within, size=size)
        self._made.append(machine)
        return machine

    def end(self) -> None:
        """End all of them."""
        for machine in self._made:
            machine.end()


@contextmanager
def machines_in(directory: Path) -> Iterator[Machines]:
    """Make a network for machines, and end them all with the block."""
    with Namespaces() as namespaces:
        machines = Machines(directory, namespaces.create("site"))
        try:
            yield machines
        finally:
            machines.end()


def holding(secret: str, *places: Path) -> set[str]:
    """Name the files below some places, and the processes, in which a secret stands."""
    found = {
        str(path)
        for place in places
        for path in place.rglob("*")
        if path.is_file() and path.name != "password" and secret.encode() in path.read_bytes()
    }
    for process in Path("/proc").iterdir():
        for name in ("cmdline", "environ") if process.name.isdigit() else ():
            try:
                data = (process / name).read_bytes()
            except OSError:
                continue  # it has ended
            if secret.encode() in data:
                found.add(f"{process}/{name}")
    return found
