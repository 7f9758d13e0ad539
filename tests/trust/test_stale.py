"""Metadata of which the part has expired that the admin server signs: it still says who may serve what."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from workshop import Workshop, grant_custom, now, release_custom, signer

from p2pdist.errors import TrustError
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.metadatasets import MetadataSets
from p2pdist.trust.verifier import Verifier
from p2pdist.wire.requests import Bundle

APP = "stable/app/1.0/app.bin"
NODE = IdentityKey.generate().node
MakeVerifier = Callable[[], Verifier]


@pytest.fixture
def outage(workshop: Workshop, verifier: Verifier) -> datetime:
    """A legitimate update, a sanity check, and then the server is away: a time after the timestamp's end."""
    workshop.add_grant(f"points/{NODE}.grant", grant_custom(NODE))
    workshop.sign(bump=("points",))
    catalog = verifier.update(workshop.bundle(), now=now())
    assert not catalog.stale
    assert APP in catalog.releases
    return workshop.timestamp.expires + timedelta(hours=1)


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_when_only_an_online_role_has_expired_grants_and_releases_are_known_but_stale(
    workshop: Workshop, verifier: Verifier, make_verifier: MakeVerifier, outage: datetime, role: str
) -> None:
    if role == "snapshot":
        workshop.timestamp.expires = outage + timedelta(days=1)
        workshop.snapshot.expires = outage - timedelta(minutes=1)
        workshop.sign()
        verifier.update(workshop.bundle(), now=now())
    recalled = make_verifier().recall(now=outage)
    assert recalled is not None
    assert recalled.stale
    assert APP in recalled.releases
    assert recalled.grants[NODE].scope == "/emea"
    assert recalled.expires > outage.timestamp()


def test_metadata_that_is_fresh_is_recalled_as_what_it_is(
    verifier: Verifier, make_verifier: MakeVerifier, outage: datetime
) -> None:
    assert make_verifier().recall(now=now()) == make_verifier().load(now=now())


def test_nothing_is_recalled_where_nothing_was_believed(verifier: Verifier) -> None:
    assert verifier.recall(now=now()) is None


def test_what_is_stale_is_not_accepted_as_an_update(
    workshop: Workshop, make_verifier: MakeVerifier, outage: datetime
) -> None:
    verifier = make_verifier()
    assert verifier.recall(now=outage) is not None
    for bundle in (workshop.bundle(), Bundle(files={})):
        with pytest.raises(TrustError, match="the timestamp has expired"):
            verifier.update(bundle, now=outage)


@pytest.mark.parametrize("role", ["root", "targets"])
def test_when_what_people_sign_has_expired_too_nothing_is_recalled(
    workshop: Workshop, verifier: Verifier, outage: datetime, role: str
) -> None:
    if role == "root":
        workshop.root.expires = outage - timedelta(minutes=1)
        workshop.sign_root()
    else:
        workshop.targets["targets"].expires = outage - timedelta(minutes=1)
    workshop.sign(bump=("targets",))
    verifier.update(workshop.bundle(), now=now())
    with pytest.raises(TrustError, match="has expired on"):
        verifier.recall(now=outage)


@pytest.mark.parametrize("role", ["points", "channel-stable"])
def test_a_role_of_people_that_has_expired_is_left_out_of_what_is_stale(
    workshop: Workshop, verifier: Verifier, outage: datetime, role: str
) -> None:
    workshop.targets[role].expires = outage - timedelta(minutes=1)
    workshop.sign(bump=(role,))
    verifier.update(workshop.bundle(), now=now())
    recalled = verifier.recall(now=outage)
    assert recalled is not None
    assert role in recalled.left_out
    assert (NODE in recalled.grants, APP in recalled.releases) == (role != "points", role == "points")


def test_keys_that_a_newer_root_has_revoked_do_not_speak_in_what_is_stale(
    workshop: Workshop, verifier: Verifier, outage: datetime
) -> None:
    workshop.root.revoke_key(signer("lead").public_key.keyid, "targets")
    workshop.root.add_key(signer("heir").public_key, "targets")
    workshop.sign_root()
    with pytest.raises(TrustError):  # the rest is still the old one: only the root is kept
        verifier.update(Bundle(files={"2.root.json": workshop.roots[1]}), now=now())
    with pytest.raises(TrustError, match="targets"):
        verifier.recall(now=outage)


def test_stale_metadata_teaches_a_node_no_newer_time(
    verifier: Verifier, outage: datetime, tmp_path: Path
) -> None:
    sets = MetadataSets(tmp_path / "trust")
    before = sets.clock_floor()
    assert verifier.recall(now=outage) is not None
    assert sets.clock_floor() == before


def test_a_clock_that_was_set_back_is_noticed_in_what_is_recalled(
    verifier: Verifier, outage: datetime
) -> None:
    with pytest.raises(TrustError, match="clock went back"):
        verifier.recall(now=now() - timedelta(days=2))


def test_a_damaged_timestamp_is_not_recalled_and_is_asked_for_again(
    verifier: Verifier, outage: datetime, tmp_path: Path
) -> None:
    current = MetadataSets(tmp_path / "trust").current()
    assert current is not None
    (current / "timestamp.json").write_bytes(b"garbage")
    assert verifier.recall(now=outage) is None
    assert "timestamp" not in verifier.versions()


def test_the_next_expiry_is_that_of_a_role_or_of_a_grant_that_is_still_valid(
    workshop: Workshop, verifier: Verifier
) -> None:
    soon, past = int(now().timestamp()) + 60, int(now().timestamp()) - 60
    other = IdentityKey.generate().node
    workshop.add_grant(f"points/{NODE}.grant", grant_custom(NODE, expires=soon))
    workshop.add_grant(f"points/{other}.grant", grant_custom(other, expires=past))
    workshop.add_release("stable/app/2.0/app.bin", release_custom("app", "2.0", 2))
    workshop.sign(bump=("points", "channel-stable"))
    catalog = verifier.update(workshop.bundle(), now=now())
    assert catalog.next_expiry(now().timestamp()) == soon
    assert catalog.next_expiry(soon) == catalog.expires
