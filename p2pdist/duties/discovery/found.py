"""What a poll has found so far: items for people, sightings for the inventory."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pdist import limits
from p2pdist.duties.run import RunPort
from p2pdist.net.pings import Address
from p2pdist.wire.discovery import Sighting, canonical_address
from p2pdist.wire.tasks import TaskItem


@dataclass(slots=True)
class _Known:
    """What is known of one address; dictionaries because they keep the order."""

    methods: dict[str, None] = field(default_factory=dict)
    macs: dict[str, None] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    services: dict[str, None] = field(default_factory=dict)

    def detail(self) -> str:
        """Say it in a line."""
        parts = [("hardware address", self.macs), ("called", self.names), ("offers", self.services)]
        return "; ".join(f"{word} {', '.join(texts)}" for word, texts in parts if texts)


class Found:
    """One per run. Says each thing as soon as it is known, and no thing twice."""

    def __init__(self, port: RunPort) -> None:
        self._port = port
        self._known: dict[str, _Known] = {}

    def has(self, address: Address) -> bool:
        """Whether it has answered anything."""
        return str(address) in self._known

    async def answered(self, address: Address) -> None:
        """It has answered a ping."""
        method = "echo" if address.version == 4 else "multicast"
        if method not in self._of(str(address)).methods:
            self._of(str(address)).methods[method] = None
            await self._say(str(address))
            if canonical_address(str(address)):
                await self._port.saw(Sighting(method="echo", addresses=[canonical_address(str(address))]))

    async def neighbour(self, address: Address, mac: str) -> None:
        """It stands in the table of neighbours."""
        known = self._of(str(address))
        if mac in known.macs and "neighbours" in known.methods:
            return
        known.methods["neighbours"] = None
        known.macs = {mac: None}
        await self._say(str(address))
        if own := canonical_address(str(address)):
            await self._port.saw(Sighting(method="neighbours", addresses=[own], macs=[mac]))

    async def saw(self, method: str, sighting: Sighting) -> None:
        """A method has seen a device: by its address, else by its name."""
        await self._port.saw(sighting)
        for subject in sighting.addresses[:1] or sighting.names[:1]:
            known = self._of(subject)
            known.methods[method] = None
            known.names |= dict.fromkeys(sighting.names)
            known.services |= dict.fromkeys(sighting.services)
            await self._say(subject)

    def figures(self) -> dict[str, int]:
        """Count how many were found, and how."""
        methods = [method for known in self._known.values() for method in known.methods]
        counts = {method: methods.count(method) for method in sorted(set(methods))}
        answered = counts.pop("echo", 0) + counts.pop("multicast", 0)
        neighbours = counts.pop("neighbours", 0)
        return {"found": len(self._known), "answered": answered, "neighbours": neighbours, **counts}

    def _of(self, subject: str) -> _Known:
        return self._known.setdefault(subject, _Known())

    async def _say(self, subject: str) -> None:
        known = self._known[subject]
        await self._port.item(
            TaskItem(
                subject=subject,
                state="done",
                step=", ".join(known.methods)[: limits.TASK_STEP_CHARS_MAX],
                detail=known.detail()[: limits.TASK_DETAIL_CHARS_MAX],
            )
        )
