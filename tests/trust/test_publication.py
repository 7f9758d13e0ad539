"""The admin server's copy: publications come in once and in order, online roles stay fresh."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata
from workshop import Workshop, now, release_custom, signer

from p2pdist.errors import PeerError, TrustError, UsageError
from p2pdist.trust.publication import OnlineRepository
from p2pdist.trust.verifier import Verifier

APP = "stable/app/1.0/app.bin"
NEWER = "stable/app/2.0/app.bin"


@pytest.fixture
def repository(tmp_path: Path, workshop: Workshop) -> OnlineRepository:
    return OnlineRepository(tmp_path / "online", workshop.roots[0], signer("online"))


@pytest.fixture
def device(tmp_path: Path, workshop: Workshop) -> Verifier:
    return Verifier(tmp_path / "device", workshop.roots[0])


def release_newer(workshop: Workshop) -> None:
    workshop.add_release(NEWER, release_custom("app", "2.0", 2))
    workshop.sign(bump=("channel-stable",))


def test_nothing_is_held_before_the_first_publication(repository: OnlineRepository) -> None:
    assert repository.load(now=now()) is None
    assert repository.next_resign() is None
    assert not repository.resign(now=now())
    assert repository.export({}).files == {}


def test_a_device_believes_what_the_server_took_in(
    repository: OnlineRepository, workshop: Workshop, device: Verifier
) -> None:
    catalog = repository.ingest(workshop.publication(), now=now())
    assert APP in catalog.releases
    assert device.update(repository.export(device.versions()), now=now()) == catalog


def test_each_publication_reaches_a_device_that_has_the_one_before(
    repository: OnlineRepository, workshop: Workshop, device: Verifier
) -> None:
    repository.ingest(workshop.publication(), now=now())
    device.update(repository.export(device.versions()), now=now())
    release_newer(workshop)
    repository.ingest(workshop.publication(), now=now())
    assert NEWER in device.update(repository.export(device.versions()), now=now()).releases


def test_the_servers_versions_grow_past_those_of_the_publication_and_its_own(
    repository: OnlineRepository, workshop: Workshop
) -> None:
    workshop.timestamp.version = 40
    workshop.sign()
    assert repository.ingest(workshop.publication(), now=now()).versions["timestamp"] == 42
    assert repository.resign(now=now() + timedelta(hours=13))
    assert repository.versions()["timestamp"] == 43
    release_newer(workshop)
    assert (
        repository.ingest(workshop.publication(), now=now() + timedelta(hours=13)).versions["timestamp"] == 44
    )


def test_the_same_publication_again_changes_nothing(repository: OnlineRepository, workshop: Workshop) -> None:
    first = repository.ingest(workshop.publication(), now=now())
    assert repository.ingest(workshop.publication(), now=now()) == first


def test_an_older_publication_is_refused(repository: OnlineRepository, workshop: Workshop) -> None:
    old = workshop.publication()
    release_newer(workshop)
    repository.ingest(workshop.publication(), now=now())
    with pytest.raises(TrustError, match="channel 'stable' has version 1 in it and version 2 here"):
        repository.ingest(old, now=now())
    catalog = repository.load(now=now())
    assert catalog is not None
    assert NEWER in catalog.releases


def test_two_different_publications_of_one_version_are_refused(
    repository: OnlineRepository, workshop: Workshop
) -> None:
    repository.ingest(workshop.publication(), now=now())
    workshop.add_release(NEWER, release_custom("app", "2.0", 2))
    workshop.sign()
    with pytest.raises(TrustError, match=r"version 1 of the channel 'stable'.* is not the one that is here"):
        repository.ingest(workshop.publication(), now=now())


def test_a_publication_with_a_wrong_signature_is_refused_and_changes_nothing(
    repository: OnlineRepository, workshop: Workshop
) -> None:
    before = repository.ingest(workshop.publication(), now=now())
    workshop.signers["channel-stable"] = ["dev", "mallory"]
    release_newer(workshop)
    with pytest.raises(TrustError, match="1 valid signatures of the 2"):
        repository.ingest(workshop.publication(), now=now())
    assert repository.load(now=now()) == before


def test_an_incomplete_publication_is_refused(repository: OnlineRepository, workshop: Workshop) -> None:
    with pytest.raises(PeerError, match="missing"):
        repository.ingest(workshop.publication({"1.points.json": None}), now=now())
    assert repository.load(now=now()) is None


def test_online_roles_are_signed_anew_at_half_of_their_lives(
    repository: OnlineRepository, workshop: Workshop, device: Verifier
) -> None:
    repository.ingest(workshop.publication(), now=now())
    device.update(repository.export(device.versions()), now=now())
    due = repository.next_resign()
    assert due is not None
    assert not repository.resign(now=due - timedelta(seconds=1))
    assert repository.resign(now=due)
    assert repository.versions()["snapshot"] == 2
    catalog = device.update(repository.export(device.versions()), now=due)
    assert catalog.versions["timestamp"] == repository.versions()["timestamp"] == 3
    # Half a week later the snapshot's turn comes, with a timestamp.
    later = due + timedelta(days=3.5)
    assert repository.resign(now=later)
    assert repository.versions()["snapshot"] == 3
    device.update(repository.export(device.versions()), now=later)


def test_a_server_that_slept_past_all_its_expiries_wakes_up(
    repository: OnlineRepository, workshop: Workshop, device: Verifier
) -> None:
    repository.ingest(workshop.publication(), now=now())
    later = now() + timedelta(days=20)
    with pytest.raises(TrustError, match="expired"):
        repository.load(now=later)
    assert repository.resign(now=later)
    assert device.update(repository.export(device.versions()), now=later).releases


def test_what_people_have_let_expire_is_not_made_fresh(
    repository: OnlineRepository, workshop: Workshop
) -> None:
    repository.ingest(workshop.publication(), now=now())
    with pytest.raises(TrustError, match="list of channels"):
        repository.resign(now=now() + timedelta(days=91))


def test_a_rotation_of_the_root_passes(
    repository: OnlineRepository, workshop: Workshop, device: Verifier
) -> None:
    repository.ingest(workshop.publication(), now=now())
    device.update(repository.export(device.versions()), now=now())
    workshop.root.revoke_key(signer("carol").public_key.keyid, "root")
    workshop.sign_root()
    workshop.sign_root()
    assert repository.ingest(workshop.publication(), now=now()).versions["root"] == 3
    assert device.update(repository.export(device.versions()), now=now()).versions["root"] == 3


def test_a_root_that_names_another_online_key_is_explained(
    repository: OnlineRepository, workshop: Workshop, tmp_path: Path
) -> None:
    before = repository.ingest(workshop.publication(), now=now())
    for role in ("snapshot", "timestamp"):
        workshop.root.revoke_key(signer("online").public_key.keyid, role)
        workshop.root.add_key(signer("online2").public_key, role)
        workshop.signers[role] = ["online2"]
    workshop.sign_root()
    workshop.sign()
    with pytest.raises(UsageError, match=r"names online2 .*next_key"):
        repository.ingest(workshop.publication(), now=now())
    assert repository.load(now=now()) == before
    renewed = OnlineRepository(tmp_path / "online", workshop.roots[0], signer("online2"))
    assert renewed.ingest(workshop.publication(), now=now()).versions["root"] == 2


def test_the_online_key_cannot_add_a_release(
    repository: OnlineRepository, workshop: Workshop, device: Verifier
) -> None:
    repository.ingest(workshop.publication(), now=now())
    device.update(repository.export(device.versions()), now=now())
    workshop.signers["channel-stable"] = ["online"]
    workshop.timestamp.version = workshop.snapshot.version = 50
    release_newer(workshop)
    with pytest.raises(TrustError, match="channel 'stable'"):
        device.update(workshop.bundle(), now=now())


def test_the_timestamp_says_when_it_was_signed(repository: OnlineRepository, workshop: Workshop) -> None:
    repository.ingest(workshop.publication(), now=now())
    timestamp = Metadata.from_bytes(repository.export({}).files["timestamp.json"]).signed
    assert abs(timestamp.unrecognized_fields["x-p2pdist-signed-at"] - now().timestamp()) < 60


def test_leftovers_of_a_killed_ingest_are_removed(tmp_path: Path, workshop: Workshop) -> None:
    (tmp_path / "online" / "ingest-killed").mkdir(parents=True)
    OnlineRepository(tmp_path / "online", workshop.roots[0], signer("online"))
    assert not (tmp_path / "online" / "ingest-killed").exists()
