"""A compromised admin server: what it says must be signed, and nobody believes it otherwise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_programs import DEVICES, ServerTask
from fleet_signing import SignedRelease
from harness import Fleet, Node, open_fleet
from workshop import Workshop

from p2pdist import limits
from p2pdist.trust.publication import OnlineRepository
from p2pdist.wire.requests import Bundle

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset


class Lies:
    """What a compromised admin server serves instead of, or besides, its metadata."""

    def __init__(self) -> None:
        self.files: Mapping[str, bytes] = {}


@pytest.fixture
def lies(monkeypatch: pytest.MonkeyPatch) -> Lies:
    told, export = Lies(), OnlineRepository.export

    def lying_export(self: OnlineRepository, have: Mapping[str, int]) -> Bundle:
        return Bundle(files={**export(self, have).files, **told.files})

    monkeypatch.setattr(OnlineRepository, "export", lying_export)
    return told


def forged(fleet: Fleet) -> Workshop:
    """The fleet's metadata in the hands of whoever has the online key: its versions run ahead."""
    workshop = copy.deepcopy(fleet.signing.workshop)
    workshop.snapshot.version += 100
    workshop.timestamp.version += 100
    return workshop


def signed_by_a_wrong_key(workshop: Workshop) -> Mapping[str, bytes]:
    workshop.signers["channel-stable"] = ["mallory", "eve"]
    workshop.sign(bump=("channel-stable",))
    return workshop.publication()


def signed_by_too_few(workshop: Workshop) -> Mapping[str, bytes]:
    workshop.signers["channel-stable"] = ["dev"]
    workshop.sign(bump=("channel-stable",))
    return workshop.publication()


def expired(workshop: Workshop) -> Mapping[str, bytes]:
    workshop.timestamp.expires = (datetime.now(UTC) - timedelta(hours=1)).replace(microsecond=0)
    workshop.sign(bump=("channel-stable",))
    return workshop.publication()


def truncated(workshop: Workshop) -> Mapping[str, bytes]:
    workshop.sign(bump=("channel-stable",))
    files = workshop.publication()
    return {**files, "timestamp.json": files["timestamp.json"][:-40]}


def oversized(workshop: Workshop) -> Mapping[str, bytes]:
    workshop.sign(bump=("channel-stable",))
    files = workshop.publication()
    padding = b" " * limits.TIMESTAMP_BYTES_MAX
    return {**files, "timestamp.json": files["timestamp.json"] + padding}


Forgery = Callable[[Workshop], Mapping[str, bytes]]
FORGERIES: Mapping[Forgery, str] = {
    signed_by_a_wrong_key: "sign",
    signed_by_too_few: "sign",
    expired: "expired",
    truncated: "timestamp",
    oversized: "timestamp",
}


async def lie(fleet: Fleet, lies: Lies, forgery: Forgery) -> None:
    """Serve forged metadata, and tell the fleet that it is there."""
    workshop = forged(fleet)
    lies.files = forgery(workshop)
    assert isinstance(fleet.server, ServerTask)
    await fleet.server.announce(
        {
            "timestamp": workshop.timestamp.version,
            "snapshot": workshop.snapshot.version,
            "channel-stable": workshop.targets["channel-stable"].version,
        }
    )


async def until_refused(fleet: Fleet, node: Node, kind: str) -> str:
    """Wait until the server has stored a refusal of *node*; return its reason."""

    async def reason() -> str:
        records = await fleet.refusals(who=node, kind=kind)
        return records[0].reason if records else ""

    found: str = await fleet.until(reason, f"{node.name} refuses")
    return found


@pytest.mark.parametrize(("forgery", "word"), FORGERIES.items(), ids=[f.__name__ for f in FORGERIES])
async def test_forged_metadata_is_refused_by_every_device_with_the_reason(
    tmp_path: Path, log_book: LogBook, lies: Lies, forgery: Forgery, word: str
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        await lie(fleet, lies, forgery)
        for node in fleet.nodes:
            assert word in await until_refused(fleet, node, "metadata")


async def test_what_was_signed_before_is_still_installed_while_the_server_serves_forged_metadata(
    tmp_path: Path, log_book: LogBook, lies: Lies
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        release = fleet.signing.release("1.0", sequence=1)
        await fleet.publish()
        await fleet.until(lambda: all_know(fleet, release), "every node knows the release")
        await lie(fleet, lies, signed_by_a_wrong_key)
        for device in fleet.devices:
            await until_refused(fleet, device, "metadata")
        await fleet.server.deploy(release.target, DEVICES)
        await fleet.until_reported(release)


async def test_honest_metadata_is_believed_again_after_forged_metadata_was_refused(
    tmp_path: Path, log_book: LogBook, lies: Lies
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        await lie(fleet, lies, truncated)
        for device in fleet.devices:
            await until_refused(fleet, device, "metadata")
        lies.files = {}
        release = await fleet.release()
        await fleet.until_reported(release)


async def test_an_older_release_deployed_without_permission_is_refused_on_every_device(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        older = fleet.signing.release("1.0", sequence=1)
        newer = await fleet.release("2.0", sequence=2)
        await fleet.until_reported(newer)
        await fleet.server.deploy(older.target, DEVICES)
        await fleet.until_reported(older, "refused")
        for device in fleet.devices:
            assert "older than 2" in await until_refused(fleet, device, "rollback")
            assert device.installed() == newer.content


async def test_an_older_release_is_installed_when_a_signed_permission_allows_it(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        fleet.signing.release("1.0", sequence=1)
        await fleet.until_reported(await fleet.release("2.0", sequence=2))
        older = fleet.signing.release("1.0", sequence=1, rollback_from=2)
        await fleet.publish()
        await fleet.server.deploy(older.target, DEVICES)
        await fleet.until_reported(older)
        assert {device.installed() for device in fleet.devices} == {older.content}


def all_know(fleet: Fleet, release: SignedRelease) -> bool:
    return all(
        release.target in catalog.releases
        for node in fleet.nodes
        if (catalog := node.agent.member.metadata.catalog) is not None
    )
