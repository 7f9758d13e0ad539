"""TLS 1.3 between members of the fleet: both sides show a certificate of the fleet's CA.

Names are node ids, not host names: the dialler compares the node id in the certificate with the one it
expects, so host name checks are off. Contexts are made for each dial, and for each accepted connection
when the certificate has changed, so that a renewed certificate is in use at once.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from p2pdist.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsIdentity:
    """What a node shows, and whom it believes. All PEM; the key never reaches a named file."""

    certificate_pem: bytes
    key_pem: bytes
    ca_pem: bytes

    def __repr__(self) -> str:
        return "TlsIdentity(…)"


def client_context(identity: TlsIdentity) -> ssl.SSLContext:
    """Make the context of a member that dials."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, identity.ca_pem)
    _load(context, identity)
    return context


def stranger_context(ca_pem: bytes) -> ssl.SSLContext:
    """Make the context of a node that has no certificate yet, or none any more."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, ca_pem)


def server_context(identity: TlsIdentity) -> ssl.SSLContext:
    """Make the context of a member that accepts. Who shows no certificate is a stranger, not an error."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity.ca_pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0  # links live long; tickets would only cost memory
    _load(context, identity)
    return context


def _context(protocol: int, ca_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    if protocol == ssl.PROTOCOL_TLS_CLIENT:
        context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise UsageError("the fleet's CA certificate is damaged", hint="enrol the node again") from error
    return context


def _load(context: ssl.SSLContext, identity: TlsIdentity) -> None:
    """Load certificate and key from an anonymous file in memory: ``ssl`` takes nothing but paths."""
    descriptor = os.memfd_create("p2pdist-tls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, identity.certificate_pem + b"\n" + identity.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise UsageError(
            f"the node's certificate and key do not fit together ({error.reason})",
            hint="enrol the node again",
        ) from error
    finally:
        os.close(descriptor)
