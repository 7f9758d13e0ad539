"""Becoming a member of the fleet.

The node makes its identity key and keeps it; the token travels sealed for the admin server, so that a
distribution point that passes it on learns nothing. Enrolment can be repeated: the key is kept, and
the admin server recognises the same machine.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections import deque
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

from p2pdist import limits
from p2pdist.core.upstream import Upstream
from p2pdist.errors import TrustError, Unavailable, UsageError
from p2pdist.files import write_atomic
from p2pdist.install.platform import detect_platform
from p2pdist.logs import get_logger
from p2pdist.net.endpoints import parse_endpoint
from p2pdist.net.link import open_link, open_stranger_link
from p2pdist.node.home import Home
from p2pdist.node.mail import Mail
from p2pdist.trust.certificates import check_certificate, make_request, parse_certificate
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.trust.enrolmentfiles import EnrolmentAnswer, EnrolmentRequest
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.sealing import seal_anonymous
from p2pdist.trust.verifier import Verifier
from p2pdist.wire import codec
from p2pdist.wire.messages import RenewalRequest
from p2pdist.wire.requests import Bundle, BundleRequest, Enrolled, EnrolRequest, EnrolSecret, RenewRequest

_log = get_logger()

_RENEW_AGAIN_S, _RENEW_AGAIN_S_MAX = 1.0, 60.0
_KEY_FILE = "identity.key"
_MACHINE_ID = Path("/etc/machine-id")


async def enrol(
    root: Path,
    bundle: EnrolmentBundle,
    token: str,
    *,
    name: str | None = None,
    local_host: str | None = None,
    machine: str | None = None,
) -> Home:
    """Enrol a node and return its directory, ready to run.

    Args:
        root: The node's directory; made if it is not there.
        bundle: The fleet, as the operator handed it out.
        token: An enrolment token.
        name: What people call the device; the host's name by default.
        local_host: The address to dial from; the system's choice by default.
        machine: What tells this machine from a clone of its disk; ``/etc/machine-id`` by default.

    Raises:
        UsageError, TrustError: the admin server refused (wrong, used or late token; a clone).
        Unavailable: no address answered. Nothing but the key has been written; call again. Or the point
            that passed the enrolment on has no metadata that this node may have.
    """
    key = make_identity(root)
    request = _request(key, bundle, token, name=name, machine=machine)
    enrolled, carrier = await _ask(bundle, "/enrol", request, local_host)
    certificate = parse_certificate(enrolled.certificate)
    if certificate.node != key.node:
        raise TrustError(f"the admin server answered with a certificate for {certificate.node}")
    home = await trio.to_thread.run_sync(_settle, root, bundle, enrolled.certificate)
    if carrier.node != bundle.server_node:
        await _ask_for_metadata(home, carrier, local_host)
    return home


async def _ask_for_metadata(home: Home, carrier: Upstream, local_host: str | None) -> None:
    """Get the first metadata from the point that has passed the enrolment on.

    The admin server may be out of reach, and without metadata a node knows of no point that may carry it.
    """
    async with open_link(
        carrier.host,
        carrier.port,
        identity=home.tls_identity(),
        expect=carrier.node,
        others=carrier.others,
        local_host=local_host,
    ) as link:
        bundle = await link.request("/bundle", BundleRequest(have={}), Bundle)
    verifier = Verifier(home.trust, home.enrolment.root)
    await trio.to_thread.run_sync(partial(verifier.update, bundle, now=datetime.now(UTC)))


def ask_in_writing(
    root: Path, bundle: EnrolmentBundle, token: str, *, name: str | None = None, machine: str | None = None
) -> EnrolmentRequest:
    """Make the request of :func:`enrol` for somebody who carries it to the admin server. Blocking.

    Raises:
        Unavailable: the disk is full or fails.
    """
    key = make_identity(root)
    asked = _request(key, bundle, token, name=name, machine=machine)
    return EnrolmentRequest(
        fleet=bundle.fleet, node=key.node, name=name or socket.gethostname(), sealed=asked.sealed
    )


def take_answer(root: Path, bundle: EnrolmentBundle, answer: EnrolmentAnswer, *, now: datetime) -> Home:
    """Become a member by an answer that was carried here. Blocking; *now* is aware.

    Raises:
        UsageError: nobody has asked for it here, or it is for another machine or fleet.
        TrustError: the certificate is not one of the fleet's authority, or not valid now.
    """
    if not (root / _KEY_FILE).exists():
        raise UsageError(f"{root} holds no identity key", hint="make a request first: --request FILE")
    key = IdentityKey.load(root / _KEY_FILE)
    if answer.fleet != bundle.fleet:
        raise UsageError(f"the answer is of the fleet {answer.fleet}, the bundle of {bundle.fleet}")
    certificate = check_certificate(answer.certificate_pem, ca_pem=bundle.ca_pem, now=now)
    if certificate.node != key.node:
        raise UsageError(
            f"the answer is for {certificate.node}, and this machine is {key.node}",
            hint="bring the answer to the machine that has asked for it",
        )
    return _settle(root, bundle, answer.certificate_pem)


def make_identity(root: Path) -> IdentityKey:
    """Return the identity key in a node's directory; both are made if they are not there. Blocking."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / _KEY_FILE
    if path.exists():
        return IdentityKey.load(path)
    key = IdentityKey.generate()
    key.save(path)
    return key


def _request(
    key: IdentityKey, bundle: EnrolmentBundle, token: str, *, name: str | None, machine: str | None
) -> EnrolRequest:
    secret = EnrolSecret(
        token=token,
        request=make_request(key),
        name=name or socket.gethostname(),
        platform=detect_platform(),
        machine=machine or machine_hash(),
    )
    return EnrolRequest(sealed=seal_anonymous(codec.encode(secret), bundle.server_public))


def _settle(root: Path, bundle: EnrolmentBundle, certificate_pem: bytes) -> Home:
    bundle.save(root / "enrolment.json")
    write_atomic(root / "certificate.pem", certificate_pem)
    return Home.open(root)


async def renew_while_expired(
    home: Home, mail: Mail, *, spread: float, local_host: str | None = None
) -> None:
    """Get a new certificate if the present one has expired; try until one is valid by this node's clock.

    Args:
        spread: From 0 to 1, different for each node: what keeps a fleet from trying at the same moment.

    Raises:
        TrustError, UsageError: as :func:`renew_expired`.
    """
    delay = _RENEW_AGAIN_S
    while _expired(home):
        _log.warning("certificate.expired", expired=home.certificate.not_after.isoformat())
        try:
            await renew_expired(home, mail, now=int(time.time()), local_host=local_host)
            reason = "this node's clock is ahead by more than a certificate's life; set it"
        except Unavailable as error:
            reason = str(error)
        if _expired(home):
            _log.warning("certificate.not_renewed", reason=reason)
            await trio.sleep(delay * (0.5 + 0.5 * spread))
            delay = min(delay * 2, _RENEW_AGAIN_S_MAX)


async def renew_expired(home: Home, mail: Mail, *, now: int, local_host: str | None = None) -> None:
    """Get a new certificate although the present one has expired.

    The request is sealed with the identity key, which the admin server knows; no token is needed.

    Raises:
        TrustError, UsageError: the admin server refuses; the node was revoked or is not known.
        Unavailable: no address answered; call again later.
    """
    asked = await ask_for_renewal(home, mail, now=now)
    enrolled, _ = await _ask(home.enrolment, "/renew", asked, local_host)
    try:
        await trio.to_thread.run_sync(home.replace_certificate, enrolled.certificate)
    except TrustError as error:  # a point that passes requests on has made it up; another one may not
        raise Unavailable(error.what, hint="it is asked for again") from error


async def ask_for_renewal(home: Home, mail: Mail, *, now: int) -> RenewRequest:
    """Make the request for :func:`renew_expired`, for whoever brings it to the admin server."""
    return RenewRequest(envelope=await mail.seal(RenewalRequest(request=make_request(home.key)), now=now))


def _expired(home: Home) -> bool:
    return home.certificate.not_after.timestamp() <= time.time()


def machine_hash() -> str:
    """Return a hash of this machine's id, which a cloned disk in another machine may share.

    Empty where the system has none: the admin server then knows the machine by its key alone.
    """
    try:
        machine_id = _MACHINE_ID.read_bytes().strip()
    except OSError:
        return ""
    return hashlib.sha256(b"p2pdist machine " + machine_id).hexdigest()


async def _ask(
    bundle: EnrolmentBundle, path: str, request: EnrolRequest | RenewRequest, local_host: str | None
) -> tuple[Enrolled, Upstream]:
    """Ask whoever answers first; return the answer, and who gave it or passed it on.

    The addresses may be those of several gateways. When the first that answers cannot pass the request
    on, the next time it begins with another one.
    """
    problems: list[str] = []
    ends = deque(map(parse_endpoint, bundle.addresses))
    for _ in bundle.addresses:
        reached = False
        (host, port), *others = ends
        try:
            with trio.fail_after(limits.LINK_HANDSHAKE_S + limits.REQUEST_TIMEOUT_S):
                async with open_stranger_link(
                    host, port, ca_pem=bundle.ca_pem, expect=None, others=others, local_host=local_host
                ) as link:
                    reached = True
                    answer: Enrolled = await link.request(path, request, Enrolled)
                    assert link.remote is not None, "who accepts shows a certificate"
                    by = Upstream(
                        node=link.remote.node, host=host, port=port, kind="point", others=tuple(others)
                    )
                    return answer, by
        except (Unavailable, trio.TooSlowError) as error:
            problems.append(str(error) or "too slow")
            if not reached:  # at none of them
                break
        ends.rotate(-1)
    raise Unavailable(
        f"none of {', '.join(bundle.addresses)} answered ({'; '.join(dict.fromkeys(problems))})",
        hint="check the network and that the admin server runs, then try again; where nothing may be dialled,"
        " enrol with files: --request",
    )
