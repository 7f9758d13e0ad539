"""One run of one system: what it has to work with, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from network import Host, Network
from processes import FinishTimes, Processes


@dataclass
class Run:
    """What a system has to work with."""

    network: Network
    package: Path
    directory: Path
    processes: Processes
    finished: FinishTimes
    go: Callable[[], None]
    deadline_s: float
    settle_s: float
    """How long devices rest after all was installed, before an idle one is looked at."""
    counted: Callable[[], None]
    """Says that the last device has finished: what crosses the network from now on does not count."""
    seconds: Callable[[float], float]
    """Turns a time of the monotonic clock into seconds since :attr:`go`."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What a system measured beside its finish times, for the result."""

    def devices(self) -> Iterator[tuple[str, Host]]:
        """Yield every device's name and host."""
        return named_devices(self.network)

    def output(self, name: str) -> Path:
        """Return where a device's copy goes."""
        return self.directory / name / self.package.name

    def wait(self) -> None:
        """Wait until every device has finished."""
        self.processes.wait_all(self.finished.complete, deadline_s=self.deadline_s, what="the last device")


def named_devices(network: Network) -> Iterator[tuple[str, Host]]:
    """Yield every device's name and host."""
    for site in network.sites:
        for index, host in enumerate(site.devices, 1):
            yield f"site{site.number}-device{index}", host
