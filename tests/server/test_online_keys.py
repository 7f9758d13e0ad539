"""Replacing the online key: the server has both, and signs with whichever the newest root names."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from serverkit import Fleet, Publisher, enrolled_device, open_fleet, signer

from p2pdist.errors import UsageError
from p2pdist.server.config import OnlineTable
from p2pdist.server.running import open_online_keys
from p2pdist.wire import api as wire
from p2pdist.wire.requests import Bundle, BundleRequest

pytestmark = pytest.mark.slow  # a whole server: not in the fast subset

DATA = bytes(range(256)) * 1_000


def signed_by(fleet: Fleet) -> str:
    """Whose signature is on the timestamp."""
    timestamp = json.loads(fleet.service.repository.export({}).files["timestamp.json"])
    keys = {signer(name).public_key.keyid: name for name in ("online", "online2")}
    return keys[timestamp["signatures"][0]["keyid"]]


async def test_a_rotated_online_key_is_used_from_the_publication_on_that_names_it(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    async with open_fleet(tmp_path, publisher, online=("online", "online2")) as fleet:
        await fleet.operator.publish(publisher)
        assert signed_by(fleet) == "online"
        device = await enrolled_device(fleet)
        publisher.rotate_online("online2")
        publisher.add_release("2.0", DATA * 2, sequence=2)
        assert (await fleet.operator.publish(publisher)).releases == 2
        assert signed_by(fleet) == "online2"
        async with device.attached() as link:
            bundle = await link.request("/bundle", BundleRequest(have={"root": 1}), Bundle)
            assert "2.root.json" in bundle.files
    async with open_fleet(tmp_path, publisher, online=("online2",)) as fleet:
        assert fleet.service.trouble == "" and len(fleet.service.catalog.releases) == 2
        assert fleet.service.repository.resign(now=datetime.now(UTC) + timedelta(hours=13))
        assert signed_by(fleet) == "online2"


async def test_a_root_that_names_a_key_that_the_server_lacks_is_refused_with_a_way(
    tmp_path: Path,
) -> None:
    publisher = Publisher(tmp_path / "signed")
    publisher.add_release("1.0", DATA)
    async with open_fleet(tmp_path, publisher) as fleet:
        await fleet.operator.publish(publisher)
        publisher.rotate_online("online2")
        body = wire.NewPublication(metadata=publisher.metadata(), torrents={})
        problem = await fleet.operator.problem("POST", "/publications", body)
        assert "online2" in problem.detail and "next_key" in problem.hint
        assert signed_by(fleet) == "online" and fleet.service.trouble == ""


def test_half_of_a_next_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.server.running.open_online_key", lambda key, passphrase: signer("online"))
    table = OnlineTable(key=tmp_path, passphrase_file=tmp_path, next_key=tmp_path)
    with pytest.raises(UsageError, match="only one of next_key"):
        open_online_keys(table)
