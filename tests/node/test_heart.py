"""What a node says of itself, and how little of it while nothing changes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from p2pdist.node.reports import Heart
from p2pdist.wire import codec
from p2pdist.wire.discovery import Interface
from p2pdist.wire.messages import FromDevice, Heartbeat

CARD = Interface(mac="00:1b:21:00:00:07", addresses=["10.1.0.7", "fd00::7"])


class Beating:
    """A heart, with what it has said."""

    def __init__(self, root: Path) -> None:
        self.said: list[Heartbeat] = []
        self.has_link = True
        self.cards = [CARD]
        certificate = SimpleNamespace(not_after=datetime(2030, 1, 1, tzinfo=UTC), swarms=[])
        self.heart = Heart(
            cast(Any, SimpleNamespace(certificate=certificate, root=root)),
            cast(Any, SimpleNamespace(versions={"root": 1})),
            name="desk",
            spread=0.5,
            desired=lambda: None,
            installed=dict,
            opened=lambda: None,  # type: ignore[arg-type, return-value]  # it has opened nothing
            send=self.send,
        )
        self.heart.interfaces = lambda: self.cards

    async def send(self, message: FromDevice) -> bool:
        assert isinstance(message, Heartbeat)
        if self.has_link:
            self.said.append(message)
        return self.has_link

    def told(self) -> list[list[Interface] | None]:
        return [beat.interfaces for beat in self.said]


@pytest.fixture
def beating(tmp_path: Path) -> Beating:
    return Beating(tmp_path)


async def test_interfaces_are_said_once_and_again_when_they_change(beating: Beating) -> None:
    moved = Interface(mac=CARD.mac, addresses=["10.2.0.7"])
    await beating.heart.beat()
    await beating.heart.beat()
    beating.cards = [moved]
    await beating.heart.beat()
    await beating.heart.beat()
    assert beating.told() == [[CARD], None, [moved], None]


async def test_what_had_no_link_was_not_said(beating: Beating) -> None:
    beating.has_link = False
    await beating.heart.beat()
    beating.has_link = True
    await beating.heart.beat()
    assert beating.told() == [[CARD]]


async def test_over_a_new_link_everything_is_said_again(beating: Beating) -> None:
    await beating.heart.beat()
    beating.heart.linked()
    await beating.heart.beat()
    assert beating.told() == [[CARD], [CARD]]


async def test_an_idle_heartbeat_costs_a_few_bytes_for_its_interfaces(beating: Beating) -> None:
    await beating.heart.beat()
    await beating.heart.beat()
    first, idle = (len(codec.encode(beat)) for beat in beating.said)
    assert first - idle > 40
    assert len(codec.encode({"interfaces": None})) < 16
