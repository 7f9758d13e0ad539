"""What a device lets whom do."""

from __future__ import annotations

import pytest

from p2pdist import limits
from p2pdist.core.services import Invitations, ServicePolicy, in_words, unannounced
from p2pdist.wire.messages import SessionInvite
from p2pdist.wire.services import Diagnosis, Echo, Logs, Reachability, Service, Tunnel


def invite(number: int, *, expires: int = 100, service: Service | None = None) -> SessionInvite:
    return SessionInvite(
        session=f"{number:032x}",
        initiator="a" * 32,
        authority=b"",
        by="alice",
        expires=expires,
        service=service or Echo(),
    )


@pytest.mark.parametrize("service", [Echo(), Logs(), Diagnosis(), Reachability()])
def test_a_device_shows_itself_unless_it_is_told_otherwise(service: Service) -> None:
    assert ServicePolicy().objection(service) is None


@pytest.mark.parametrize("service", [Logs(), Diagnosis()])
def test_what_the_policy_forbids_is_refused_and_says_where_that_is_set(service: Service) -> None:
    objection = ServicePolicy(logs=False, diagnosis=False).objection(service)
    assert objection is not None
    assert "[sessions]" in objection


def test_no_port_is_reached_that_is_not_allowed() -> None:
    assert "none" in (ServicePolicy().objection(Tunnel(port=22)) or "")
    policy = ServicePolicy(tunnel_ports=(22, 3389))
    assert policy.objection(Tunnel(port=22)) is None
    assert "22, 3389" in (policy.objection(Tunnel(port=23)) or "")


SERVICES = [Echo(), Tunnel(port=22), Tunnel(port=80), Logs(), Logs(follow=True), Diagnosis(), Reachability()]


@pytest.mark.parametrize("asked", SERVICES)
def test_only_the_service_that_was_announced_is_taken(asked: Service) -> None:
    taken = [service for service in SERVICES if unannounced(asked, invite(1, service=service)) is None]
    assert taken == [asked]


def test_every_service_has_words_of_its_own() -> None:
    assert len({in_words(service) for service in SERVICES}) == len(SERVICES)
    assert in_words(Tunnel(port=22)) == "tunnel to port 22"
    refused = unannounced(Tunnel(port=22), invite(1, service=Echo()))
    assert refused == "this session was announced for another use: ping, not tunnel to port 22"


def test_an_invitation_is_good_for_one_session() -> None:
    invitations = Invitations()
    invitations.add(invite(1), 0)
    assert invitations.take(f"{2:032x}", 0) is None
    assert invitations.take(f"{1:032x}", 0) == invite(1)
    assert invitations.take(f"{1:032x}", 0) is None


def test_an_invitation_that_has_expired_is_good_for_nothing() -> None:
    invitations = Invitations()
    invitations.add(invite(1, expires=50), 0)
    assert invitations.take(f"{1:032x}", 50) is None


def test_of_too_many_invitations_the_newest_stay() -> None:
    invitations = Invitations()
    for number in range(limits.SESSION_INVITES_MAX + 2):
        invitations.add(invite(number), 0)
    assert invitations.take(f"{1:032x}", 0) is None
    assert invitations.take(f"{2:032x}", 0) is not None


def test_expired_invitations_make_room_first() -> None:
    invitations = Invitations()
    invitations.add(invite(0, expires=100), 0)
    for number in range(1, limits.SESSION_INVITES_MAX):
        invitations.add(invite(number, expires=10), 0)
    invitations.add(invite(99, expires=100), 20)
    assert invitations.take(f"{0:032x}", 20) is not None
    assert invitations.take(f"{99:032x}", 20) is not None
