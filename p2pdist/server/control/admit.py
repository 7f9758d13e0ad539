"""Becoming and staying a member: enrolment with a token, renewal with the identity key."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import trio

from p2pdist import limits
from p2pdist.core.throttle import Throttle
from p2pdist.errors import PeerError, TrustError, Unavailable
from p2pdist.ids import NodeId, node_id_of
from p2pdist.logs import get_logger
from p2pdist.net.link import Link, RequestHandler, RequestTable
from p2pdist.server.control.devices import Device, Directory
from p2pdist.trust.certificates import FleetAuthority, parse_certificate, parse_request
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.sealing import open_anonymous
from p2pdist.wire import codec
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.messages import FromDevice, RenewalRequest
from p2pdist.wire.requests import Enrolled, EnrolRequest, EnrolSecret, RenewRequest

_log = get_logger()

RENEWALS_MAX = 6  # for new swarms one after the other, and answers that were lost
RENEWALS_WITHIN_S = 120.0


class AdmitStore(Protocol):
    """What admission needs of the store. Blocking; called in a worker thread."""

    def enrol(
        self, *, token: str, public: bytes, name: str, platform: str, machine: str, host: str, now: int
    ) -> Device:
        """Use a token up and record the device, in one transaction.

        Raises:
            TrustError: the token is unknown, used up or late; the device is revoked, or a clone.
            Unavailable: the disk is full.
        """

    def device(self, node: NodeId) -> Device | None:
        """Return a device that has been enrolled."""

    def certificate_issued(self, node: NodeId, *, serial: int, expires: int, now: int) -> None:
        """Record a certificate before it is handed out."""


class Admission:
    """Issues certificates to those who may have one.

    Args:
        refused: Called with the host of somebody who was not enrolled, and the reason.
    """

    def __init__(
        self,
        *,
        key: IdentityKey,
        authority: FleetAuthority,
        store: AdmitStore,
        threads: trio.CapacityLimiter,
        directory: Directory,
        open_envelope: Callable[[Envelope, Device], FromDevice | None],
        life_s: int,
        refused: Callable[[str, str], None],
    ) -> None:
        self._key = key
        self._authority = authority
        self._store = store
        self._threads = threads
        self._directory = directory
        self._open_envelope = open_envelope
        self._life_s = life_s
        self._refused = refused
        self._renewals = Throttle(RENEWALS_MAX, RENEWALS_WITHIN_S)

    @property
    def requests(self) -> RequestTable:
        """What may be asked of it, by strangers too."""
        return {
            "/enrol": RequestHandler(EnrolRequest, self.enrol, strangers=True),
            "/renew": RequestHandler(RenewRequest, self.renew, strangers=True),
        }

    async def enrol(self, link: Link, request: EnrolRequest) -> Enrolled:
        """Answer ``/enrol``."""
        return await self.enrol_from(link.remote_host, request)

    async def enrol_from(self, host: str, request: EnrolRequest) -> Enrolled:
        """Make a node a member of the fleet, wherever its request comes from.

        Raises:
            TrustError, PeerError: the token does not allow it, or the request is not valid.
            Unavailable: the disk is full.
        """
        secret: EnrolSecret = codec.decode(
            open_anonymous(request.sealed, key=self._key), EnrolSecret, bytes_max=limits.ENROL_BYTES_MAX
        )
        public = parse_request(secret.request)
        try:
            device = await trio.to_thread.run_sync(
                lambda: self._store.enrol(
                    token=secret.token,
                    public=public,
                    name=secret.name,
                    platform=secret.platform,
                    machine=secret.machine,
                    host=host,
                    now=int(time.time()),
                ),
                limiter=self._threads,
            )
        except TrustError as error:
            _log.warning("enrolment.refused", name=secret.name, host=host, reason=error.what)
            # by the host alone: whoever guesses tokens under many names is one row with a count
            self._refused(host, f"an enrolment was refused: {error.what}")
            raise
        _log.info("device.enrolled", node=device.node, device=device.name, group=device.group)
        return await self._enrolled(device)

    async def renew(self, link: Link, request: RenewRequest) -> Enrolled:
        """Answer ``/renew``: the sender proves itself by its envelope, because its certificate ran out."""
        sender = NodeId(request.envelope.sender)
        device = await trio.to_thread.run_sync(self._store.device, sender, limiter=self._threads)
        if device is None:
            raise TrustError(f"{sender} is not enrolled", hint="enrol it with a token")
        if device.revoked is not None:
            raise TrustError(f"{sender} is revoked: {device.revoked}", hint="ask the fleet's operator")
        message = self._open_envelope(request.envelope, device)
        if not isinstance(message, RenewalRequest):
            raise PeerError("a renewal was asked for with something else, or twice")
        self._check_renewal(device, message)
        return await self._enrolled(device)

    async def certificate(self, device: Device, message: RenewalRequest) -> bytes:
        """Issue a renewed certificate to an attached device.

        Raises:
            TrustError: the request is for another key.
            Unavailable: the device has had too many in a short time.
        """
        self._check_renewal(device, message)
        return await self._issue(device)

    def _check_renewal(self, device: Device, message: RenewalRequest) -> None:
        if node_id_of(parse_request(message.request)) != device.node:
            raise TrustError(f"{device.node} asked for a certificate for another key")
        if not self._renewals.allows(device.node, trio.current_time()):
            raise Unavailable(
                f"{device.node} has had {RENEWALS_MAX} certificates in less than {RENEWALS_WITHIN_S:.0f} s",
                hint="it asks again later; check its clock if this goes on",
            )

    async def _enrolled(self, device: Device) -> Enrolled:
        return Enrolled(certificate=await self._issue(device), node=device.node, group=device.group)

    async def _issue(self, device: Device) -> bytes:
        now = datetime.now(UTC)
        swarms = self._directory.swarms(device, int(now.timestamp()))
        pem = self._authority.issue(
            device.public, group=device.group, swarms=swarms, life_s=self._life_s, now=now
        )
        issued = parse_certificate(pem)
        await trio.to_thread.run_sync(
            lambda: self._store.certificate_issued(
                device.node,
                serial=issued.serial,
                expires=int(issued.not_after.timestamp()),
                now=int(now.timestamp()),
            ),
            limiter=self._threads,
        )
        return pem
