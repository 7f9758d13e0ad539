"""Reads the entries of a directory page by page. Blocking, for a thread; but for :meth:`Reader.close`."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import ldap3
import ldap3.core.exceptions
from pyasn1.error import PyAsn1Error

from p2pdist import limits
from p2pdist.duties.discovery.ldapsocket import BoundedSocket, OurTls
from p2pdist.errors import PeerError, TrustError, Unavailable
from p2pdist.net.tls import web_context
from p2pdist.wire.discovery import printable

_PAGED = "1.2.840.113556.1.4.319"
ATTRIBUTES = ("cn", "dNSHostName", "objectGUID", "entryUUID", "operatingSystem", "operatingSystemVersion")
_SIZE_LIMIT_EXCEEDED, _UNAVAILABLE_CRITICAL_EXTENSION = 4, 12
_ANONYMOUS = "it was asked by nobody: name a user, or give this node one of its own in its [[directories]]"
COMPUTERS = "(|(objectClass=computer)(objectClass=device)(objectClass=ipHost))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory, and what is read from it.

    Attributes:
        base: Below which computers are looked for, as a distinguished name.
        tls: ``ldaps`` from the first byte, ``starttls`` before anything is said (RFC 4513, section 3), or
            ``none``, which shows the password to everybody on the way.
        ca_pem: Who may vouch for the server; by default the machine's own authorities.
        page: Entries at a time.
    """

    host: str
    port: int
    base: str
    tls: Literal["ldaps", "starttls", "none"] = "ldaps"
    user: str = ""
    password: str = field(default="", repr=False)
    ca_pem: bytes | None = None
    filter: str = COMPUTERS
    page: int = 500


_BROKEN = (
    ldap3.core.exceptions.LDAPExceptionError,
    PyAsn1Error,
    struct.error,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    RecursionError,
)
"""What ldap3 raises where a server does not answer as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a search result: its distinguished name, and the raw values of its attributes."""

    name: str
    attributes: Mapping[str, Sequence[bytes]]


def _entry(said: Mapping[str, Any]) -> Entry:
    attributes = {
        name: [bytes(value) for value in said["raw_attributes"].get(name) or ()] for name in ATTRIBUTES
    }
    return Entry(name=str(said["dn"]), attributes=attributes)


class Reader:
    """Reads a directory. Blocking: every method but ``close`` runs in a thread."""

    def __init__(self, directory: Directory) -> None:
        self._of = directory
        self._socket: BoundedSocket | None = None
        self._connection: ldap3.Connection | None = None
        self._cookie: bytes | None = None
        self._entries = 0
        self._closed = False
        self.ended = False

    def open(self) -> None:
        """Connect, and say who we are."""
        of = self._of
        tls = None if of.tls == "none" else OurTls(web_context(of.ca_pem), of.host)
        server = ldap3.Server(
            of.host,
            port=of.port,
            use_ssl=of.tls == "ldaps",
            tls=tls,
            get_info=ldap3.NONE,
            connect_timeout=limits.LDAP_ANSWER_S,
        )
        self._connection = connection = ldap3.Connection(
            server,
            user=of.user or None,
            password=of.password or None,
            authentication=ldap3.SIMPLE if of.user else ldap3.ANONYMOUS,
            read_only=True,
            auto_referrals=False,
            receive_timeout=limits.LDAP_ANSWER_S,
        )
        try:
            connection.open(read_server_info=False)
            if of.tls == "starttls":
                connection.start_tls(read_server_info=False)
            self._socket = connection.socket = BoundedSocket(connection.socket)
            if not connection.bind(read_server_info=False):
                raise Unavailable(
                    f"the directory {of.host} does not let us in ({connection.result['description']})",
                    hint="check the user and its password" if of.user else _ANONYMOUS,
                )
        except _BROKEN as error:
            raise self._error(error) from None

    def next_page(self) -> list[Entry]:
        """Return the next entries; notes in ``ended`` whether there are more."""
        assert self._connection is not None and self._socket is not None
        self._socket.allow(limits.LDAP_PAGE_BYTES_MAX)
        try:
            self._connection.search(
                self._of.base,
                self._of.filter,
                attributes=list(ATTRIBUTES),
                paged_size=self._of.page,
                paged_criticality=True,
                paged_cookie=self._cookie,
            )
            result = self._connection.result
            control = (result.get("controls") or {}).get(_PAGED)
            self._cookie = bytes(control["value"]["cookie"]) if control else None
            entries = [
                _entry(each) for each in self._connection.response or () if each["type"] == "searchResEntry"
            ]
        except _BROKEN as error:
            raise self._error(error) from None
        self._entries += len(entries)
        if result["result"] not in (0, _SIZE_LIMIT_EXCEEDED):
            raise self._refused(result)
        self.ended = not self._cookie
        self._limited = result["result"] == _SIZE_LIMIT_EXCEEDED
        return entries

    def check_page(self, entries: int) -> None:
        """Raise what is wrong with the page that was just read; its entries are good."""
        host, asked = self._of.host, self._of.page
        if not entries and not self.ended:
            raise PeerError(f"the directory {host} sends empty pages without end")
        if self._limited:
            raise PeerError(
                f"the directory {host} stops after {self._entries} entries, its own limit",
                hint="poll its units one by one, or choose smaller pages",
            )
        if entries > asked:
            raise PeerError(f"the directory {host} does not page: {entries} entries in one of {asked}")
        if self._entries > limits.LDAP_ENTRIES_MAX:
            raise PeerError(f"the directory {host} has sent more than {limits.LDAP_ENTRIES_MAX} entries")

    def _refused(self, result: Mapping[str, Any]) -> Exception:
        said = f"{result['description']} {printable(str(result['message']), 200)}".strip()
        if result["result"] == _UNAVAILABLE_CRITICAL_EXTENSION:
            return PeerError(f"the directory {self._of.host} cannot page ({said})")
        unknown = not self._of.user and not self._entries
        return Unavailable(
            f"the directory {self._of.host} stops after {self._entries} entries ({said})",
            hint=_ANONYMOUS if unknown else "",
        )

    def _error(self, error: Exception) -> Exception:
        host = self._of.host
        if self._socket is not None and self._socket.exceeded:
            return PeerError(f"the directory {host} sends too much at once: it does not page")
        said = printable(str(error), 300)
        if "CERTIFICATE_VERIFY_FAILED" in said:
            return TrustError(f"the directory {host} is not trusted ({said})", hint="name its authority")
        if isinstance(error, ldap3.core.exceptions.LDAPExceptionError | OSError):
            return Unavailable(f"the directory {host} cannot be read ({said})")
        return PeerError(f"the directory {host} does not speak LDAP ({type(error).__name__} {said})")

    def close(self) -> None:
        """Close the connection, also under a thread that reads from it."""
        connection, self._connection = self._connection, None
        opened = connection.socket if connection is not None else None  # the thread may take it away
        if opened is not None:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                opened.close()
