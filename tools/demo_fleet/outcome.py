"""What came of it: the closing summary for people, and the JSON object for programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from demo_fleet.newcomers import Arrival, draw_arrivals
from demo_fleet.paths import DevicePath, draw_paths
from demo_fleet.polls import SitePoll
from demo_fleet.watch import size
from p2pdist.cli.words import source_word
from p2pdist.wire import api as wire

_DIRECTORY = re.compile(r"/\S*/p2pdist-demo-\w+/(\w+/)*")
"""The demonstration's directory, which says nothing to a reader."""

SOURCES = ("origin", "point", "peer", "mirror")
RECEIVERS = ("point", "device")


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """One device that resisted one attack."""

    attack: str
    device: str
    reason: str


class PackageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was distributed. ``bytes`` is its size on the wire."""

    target: str
    kind: str
    bytes: int


class MirrorFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An update that the admin server has never had. Sizes and counts of bytes are those of content.

    Attributes:
        mirror_sent: What the vendor's mirror has sent, by its own log, to so many ``readers``.
        points: Distribution points that have all of it from there, or from each other.
        origin_sent: What the admin server has sent meanwhile, by its own count.
        installed: How many of the ``devices`` have installed it.
    """

    target: str
    bytes: int
    mirror_sent: int
    readers: int
    points: int
    origin_sent: int
    installed: int
    devices: int


class Outcome(msgspec.Struct, kw_only=True):
    """Everything that is reported.

    ``bytes_by_source`` counts what all nodes received, the distribution points included: a byte that a
    point fetched from the origin and handed on to a device counts once as ``origin``, once as ``point``.
    ``devices_received`` are the devices' alone. ``unattributed_bytes`` are those that distribution points
    (``point``) and devices (``device``) have from nodes that could not be named, ``wasted_bytes`` those
    that came in vain, twice or altered. What the origin sent is what came from it and a part of these;
    ``origin_bytes_lost`` is what is beyond. Times are from the deployment's order. ``paths`` says of each
    device how it is connected. ``discovered`` is what the polls of hidden networks found, ``arrivals`` what
    became of the machines there that had no agent, ``mirror`` an update from its vendor, ``left_out`` says
    what of these duties this machine cannot show, and why.
    """

    network: str = "loopback"
    sites: int
    points: int
    devices: int
    installed: int = 0
    failed: int = 0
    packages: list[PackageFacts] = msgspec.field(default_factory=list)
    package_bytes: int = 0
    origin_bytes_sent: int = 0
    origin_copies: float = 0.0
    bytes_by_source: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(SOURCES, 0))
    devices_received: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(SOURCES, 0))
    unattributed_bytes: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(RECEIVERS, 0))
    wasted_bytes: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(RECEIVERS, 0))
    origin_bytes_lost: int = 0
    seconds_first: float | None = None
    seconds_last: float | None = None
    seconds_total: float = 0.0
    paths: list[DevicePath] = msgspec.field(default_factory=list)
    discovered: list[SitePoll] = msgspec.field(default_factory=list)
    arrivals: list[Arrival] = msgspec.field(default_factory=list)
    mirror: MirrorFacts | None = None
    left_out: list[str] = msgspec.field(default_factory=list)
    attacks: list[str] = msgspec.field(default_factory=list)
    refused: list[Refused] = msgspec.field(default_factory=list)
    refused_elsewhere: list[Refused] = msgspec.field(default_factory=list)
    problems: list[str] = msgspec.field(default_factory=list)
    directory: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every device ended as it should."""
        return not self.problems and self.failed == 0 and self.installed == self.devices

    def resisted(self, attack: str) -> int:
        """How many devices have refused *attack*."""
        return len({r.device for r in self.refused if r.attack == attack})

    def reasons(self, attack: str) -> list[str]:
        """The first two different reasons for which devices have refused *attack*."""
        return list(dict.fromkeys(r.reason for r in self.refused if r.attack == attack))[:2]

    def take_status(self, status: wire.Status) -> None:
        """Take in what the server knows of the bytes by receiver and kind of source."""
        self.origin_bytes_sent = status.origin_sent_bytes
        self.origin_copies = status.origin_sent_bytes / max(1, self.package_bytes)
        self.unattributed_bytes |= status.unattributed
        self.wasted_bytes |= status.wasted
        for receiver, by_source in status.received.items():
            for source, count in by_source.items():
                name = source_word(source)
                self.bytes_by_source[name] = self.bytes_by_source.get(name, 0) + count
                if receiver == "device":
                    self.devices_received[name] = self.devices_received.get(name, 0) + count
        explained = self.bytes_by_source["origin"]
        explained += sum(self.unattributed_bytes.values()) + sum(self.wasted_bytes.values())
        self.origin_bytes_lost = max(0, self.origin_bytes_sent - explained)

    def encode(self) -> str:
        """Return the JSON object."""
        fields: dict[str, Any] = {"ok": self.ok, **msgspec.to_builtins(self)}
        for name in ("seconds_first", "seconds_last", "seconds_total", "origin_copies"):
            if fields[name] is not None:
                fields[name] = round(fields[name], 3)
        return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode()


def counted(number: int, word: str) -> str:
    """Write a number of things."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def show(outcome: Outcome, console: Console) -> None:
    """Print the closing summary."""
    table = Table(title="What came of it", title_justify="left", title_style="bold", show_header=False)
    table.add_column(style="dim")
    table.add_column()
    sites = "one site with a distribution point"
    if outcome.sites > 1:
        sites = f"{outcome.sites} sites, each with a distribution point"
    table.add_row("fleet", f"{counted(outcome.devices, 'device')} at {sites}")
    names = ", ".join(f"{p.target.split('/')[-1]} ({size(p.bytes)})" for p in outcome.packages)
    table.add_row("distributed", names)
    colour = "green" if outcome.installed == outcome.devices else "bold red"
    table.add_row("installed", f"[{colour}]{outcome.installed} of {counted(outcome.devices, 'device')}[/]")
    if outcome.seconds_first is not None and outcome.seconds_last is not None:
        table.add_row(
            "time", f"first device {outcome.seconds_first:.1f} s, last device {outcome.seconds_last:.1f} s"
        )
    copies = f"{outcome.origin_copies:.2f} copies for {counted(outcome.devices, 'device')}"
    table.add_row("admin server sent", f"{size(outcome.origin_bytes_sent)}: {copies}")
    to_points = {
        source: count - outcome.devices_received.get(source, 0)
        for source, count in outcome.bytes_by_source.items()
    }
    table.add_row("points fetched", _sources(to_points))
    table.add_row("devices fetched", _sources(outcome.devices_received))
    unnamed, wasted = sum(outcome.unattributed_bytes.values()), sum(outcome.wasted_bytes.values())
    if unnamed or wasted:
        table.add_row("", f"[dim]{size(unnamed)} from nobody who could be named, {size(wasted)} in vain[/]")
    _show_duties(outcome, table)
    for attack in outcome.attacks:
        count = outcome.resisted(attack)
        colour = "green" if count == outcome.devices else "bold red"
        table.add_row(
            f"attack: {attack}", f"[{colour}]refused by {count} of {counted(outcome.devices, 'device')}[/]"
        )
        for reason in outcome.reasons(attack):
            table.add_row("", f"[dim]“{_short(reason)}”[/]")
    for problem in outcome.problems:
        table.add_row("[bold red]problem[/]", problem)
    if outcome.network != "loopback":
        console.print(draw_paths(outcome.paths), "")
    if outcome.arrivals:
        console.print(draw_arrivals(outcome.arrivals), "")
    console.print(table)


def _show_duties(outcome: Outcome, table: Table) -> None:
    """Add what the distribution points have done besides seeding."""
    if outcome.discovered:
        found, managed = (
            sum(count) for count in zip(*((p.found, len(p.managed)) for p in outcome.discovered), strict=True)
        )
        networks = counted(len(outcome.discovered), "hidden network")
        table.add_row("discovered", f"{counted(found, 'device')} in {networks}, {managed} of them managed")
    if arrivals := outcome.arrivals:
        done = [each for each in arrivals if each.state == "done"]
        last = max((each.seconds or 0.0 for each in done), default=0.0)
        text = f"{_of(len(done), len(arrivals), 'bare machine')} over SSH through their points"
        table.add_row("agent deployed", text + (f", the last after {last:.1f} s" if done else ""))
    if (mirror := outcome.mirror) is not None:
        product = mirror.target.split("/")[-1]
        table.add_row("vendor's update", f"{_of(mirror.installed, mirror.devices, 'device')}: {product}")
        copies = mirror.mirror_sent / max(1, mirror.bytes)
        colour = "green" if mirror.origin_sent == 0 else "bold red"
        table.add_row(
            "",
            f"its mirror sent {size(mirror.mirror_sent)}, {copies:.2f} copies for {mirror.points} points;"
            f" the admin server [{colour}]{size(mirror.origin_sent)}[/]",
        )
    if outcome.mirror is not None and (woken := [each for each in outcome.arrivals if each.state == "done"]):
        by_point = [each.woken_ms or 0 for each in woken if each.way == "point"]
        text = f"{_of(len(by_point), len(woken), 'resting device')} by UDP from their points"
        table.add_row("woken", text + (f", within {max(by_point)} ms" if by_point else ""))
    for reason in outcome.left_out:
        table.add_row("[yellow]left out[/]", reason)


def _of(count: int, total: int, word: str) -> str:
    colour = "green" if count == total else "bold red"
    return f"[{colour}]{count} of {counted(total, word)}[/]"


def _sources(received: Mapping[str, int]) -> str:
    total = sum(received.values())
    listed = [
        f"{name} {size(received[name])} ({received[name] / total:.0%})"
        for name in SOURCES
        if received.get(name)
    ]
    return "from " + ", ".join(listed) if listed else "nothing"


def _short(text: str, chars_max: int = 200) -> str:
    text = _DIRECTORY.sub("…/", " ".join(text.split())).replace("[", "\\[")
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"
