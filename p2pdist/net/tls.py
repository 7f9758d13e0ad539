"""TLS 1.3 between members of the fleet: both sides show a certificate of the fleet's CA.

Names are node ids, not host names: the dialler compares the node id in the certificate with the one it
expects, so host name checks are off. Contexts are made for each dial, and for each accepted connection
when the certificate has changed, so that a renewed certificate is in use at once.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from typing import Final

from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError

PROTOCOL: Final = "p2pdist/1"
"""What both sides of a link must name by ALPN (RFC 7301); another number would be another protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """What a node shows, and whom it believes. All PEM; the key never reaches a named file."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    ca_pem: bytes = field(repr=False)


_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which ssl.VerifyFlags does not name
_CERT_HAS_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED

SESSION_PROTOCOL: Final = "p2pdist-session/1"
"""The same inside of a session, so that neither can be taken for the other."""


def client_context(identity: TlsIdentity, *, protocol: str = PROTOCOL) -> ssl.SSLContext:
    """Make the context of a member that dials. Raises UsageError if *identity* is damaged."""
    context = stranger_context(identity.ca_pem)
    context.set_alpn_protocols([protocol])
    _load(context, identity)
    return context


def answering_context(identity: TlsIdentity) -> ssl.SSLContext:
    """Make the context of the answering side of a session: no strangers. Raises UsageError."""
    context = server_context(identity)
    context.set_alpn_protocols([SESSION_PROTOCOL])
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def stranger_context(ca_pem: bytes) -> ssl.SSLContext:
    """Make the context of a node that has no certificate yet, or none any more."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, ca_pem)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def server_context(identity: TlsIdentity) -> ssl.SSLContext:
    """Make the context of a member that accepts.

    Who shows no certificate is a stranger, not an error; one that does not verify fails the handshake.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity.ca_pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0  # links live long; and a ticket would let a revoked certificate in again
    _load(context, identity)
    return context


def lapsed_context(identity: TlsIdentity) -> ssl.SSLContext:
    """Make the context of a member that dials one whose certificate may have run out: its dates do not count.

    That it is of the fleet's CA, and that the other side holds its key, is checked as always. Nothing but
    a renewal is to be done on such a connection.
    """
    context = client_context(identity)
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)
    return context


def has_expired(error: BaseException | None) -> bool:
    """Whether a dial failed for no other reason than that the other side's certificate has run out."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_code == _CERT_HAS_EXPIRED
        error = error.__cause__
    return False


def web_context(ca_pem: bytes | None = None) -> ssl.SSLContext:
    """Make the context of a client of ordinary servers (HTTPS, LDAP), which are not members of the fleet.

    They prove their host names to the CAs in *ca_pem*, or to the system's. Blocking: those are read from
    files.

    Raises:
        UsageError: *ca_pem* holds no certificates.
    """
    try:
        context = ssl.create_default_context(cadata=None if ca_pem is None else ca_pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise UsageError("what is to vouch for others holds no certificates", hint="in PEM") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def failure(peer: str, error: BaseException | None) -> P2PDistError:
    """Say what the end of a connection with *peer* means, from the exception behind it."""
    cause = error.__cause__ if error is not None else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TrustError(
            f"{peer} shows no valid certificate of this fleet ({cause.verify_message})",
            hint="check the address, and both clocks",
        )
    if isinstance(cause, ssl.SSLError):
        reason = (cause.reason or str(cause)).replace("_", " ").lower()
        if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
            return TrustError(
                f"{peer} refuses our certificate ({reason})", hint="check both clocks, then enrol again"
            )
        return PeerError(f"{peer} does not speak TLS as agreed ({reason})", hint="check address and port")
    detail = f" ({cause.strerror or cause})" if isinstance(cause, OSError) else ""
    return Unavailable(f"the connection with {peer} was lost{detail}")


def _context(protocol: int, ca_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.set_alpn_protocols([PROTOCOL])
    try:
        context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise UsageError("the fleet's CA certificate is damaged", hint="enrol the node again") from error
    return context


def _load(context: ssl.SSLContext, identity: TlsIdentity) -> None:
    """Load certificate and key from an anonymous file in memory: ``ssl`` takes nothing but paths."""
    descriptor = os.memfd_create("p2pdist-tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(identity.certificate_pem + b"\n" + identity.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise UsageError(
            f"the node's certificate and key do not fit together ({error.reason or error})",
            hint="enrol the node again",
        ) from error
    finally:
        os.close(descriptor)
