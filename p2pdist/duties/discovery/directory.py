"""The computers in a directory, by LDAP version 3 with paged results (RFC 4511, RFC 2696)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar
from uuid import UUID

import ldap3.core.exceptions
import ldap3.utils.dn
import trio

from p2pdist import limits
from p2pdist.duties.discovery.ldapreader import ATTRIBUTES, COMPUTERS, Directory, Entry, Reader
from p2pdist.duties.discovery.logins import Login
from p2pdist.errors import PeerError, Unavailable
from p2pdist.wire.discovery import Sighting, printable
from p2pdist.wire.polling import PolledDirectory

T = TypeVar("T")


@trio.as_safe_channel
async def poll(directory: Directory) -> AsyncGenerator[Sighting, None]:
    """Yield the computers of a directory, page by page. What came before an error is good.

    A cancelled poll closes the connection under the thread that reads from it.

    Raises:
        Unavailable: the directory cannot be reached, does not let us in, or stops in the middle.
        TrustError: it is not who it should be.
        PeerError: it does not page, never ends, or sends too much.
    """
    reader = Reader(directory)
    seen: set[str] = set()
    try:
        await _in_time(reader.open, directory.host)
        while not reader.ended:
            page = await _in_time(reader.next_page, directory.host)
            for entry in page:
                if (sighting := sighting_of(entry, directory.base)) is None:
                    continue
                if sighting.guid and sighting.guid in seen:
                    raise PeerError(f"the directory {directory.host} sends the same entries again")
                seen.add(sighting.guid)
                yield sighting
            reader.check_page(len(page))
    finally:
        reader.close()


async def _in_time(step: Callable[[], T], host: str) -> T:
    """Do one step in a thread. When time is up, or this is cancelled, the caller closes its connection."""
    try:
        with trio.fail_after(limits.LDAP_PAGE_S):
            return await trio.to_thread.run_sync(step, abandon_on_cancel=True)
    except trio.TooSlowError:
        raise Unavailable(
            f"the directory {host} takes more than {limits.LDAP_PAGE_S:.0f} s", hint="choose smaller pages"
        ) from None


def of_poll(polled: PolledDirectory, login: Login) -> Directory:
    """Return the directory that a poll names, as who asks it."""
    return Directory(
        host=polled.host,
        port=polled.port,
        base=polled.base,
        tls=polled.tls,
        user=login.user,
        password=login.password,
        ca_pem=login.authority or None,
        filter=polled.filter or COMPUTERS,
        page=polled.page,
    )


def sighting_of(entry: Entry, base: str) -> Sighting | None:
    """Return the computer that an entry of a search result stands for; None when it says too little."""
    attributes = entry.attributes
    texts = {name: [_text(value) for value in attributes.get(name, ())] for name in ATTRIBUTES}
    names = [name for name in (*texts["dNSHostName"], *texts["cn"]) if name]
    guid = _guid(attributes.get("objectGUID"), little=True) or _guid(
        attributes.get("entryUUID"), little=False
    )
    if not names and not guid:
        return None
    system = " ".join(filter(None, (*texts["operatingSystem"][:1], *texts["operatingSystemVersion"][:1])))
    return Sighting(
        method="directory",
        names=list(dict.fromkeys(names))[: limits.SIGHTING_NAMES_MAX],
        guid=guid,
        platform=printable(system, 64),
        unit=_unit(entry.name, base),
    )


def _unit(name: str, base: str) -> str:
    """Return the parent of an entry, with the whole way up to the root."""
    try:
        parts = ldap3.utils.dn.parse_dn(name, escape=True)
    except (ldap3.core.exceptions.LDAPExceptionError, IndexError):
        return printable(base, limits.SIGHTING_UNIT_CHARS_MAX)
    unit = "".join(f"{kind}={value}{after}" for kind, value, after in parts[1:])
    return printable(unit, limits.SIGHTING_UNIT_CHARS_MAX)


def _guid(values: Sequence[bytes] | None, *, little: bool) -> str:
    value = values[0] if values else b""
    try:
        if little:
            return str(UUID(bytes_le=value))  # [MS-DTYP], section 2.3.4
        return str(UUID(value.decode("ascii")))  # RFC 4530, section 2.1
    except ValueError:
        return ""


def _text(value: bytes) -> str:
    return printable(value.decode("utf-8", "replace"), 255)
