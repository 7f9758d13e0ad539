"""What a directory of a web server offers: by a list of checksums, signed or not, or by its page of links."""

from __future__ import annotations

import time

import trio

from p2pdist import limits
from p2pdist.core.aptindexes import check_date
from p2pdist.core.listings import newest_file, parse_links, parse_sums
from p2pdist.duties.follow.openpgp import Keyring
from p2pdist.duties.follow.reading import Found, read_file
from p2pdist.duties.mirrors.http import MirrorClient
from p2pdist.duties.run import RunPort
from p2pdist.wire.following import DirectorySource, Offer

_SIGNATURE_BYTES_MAX = 64 * limits.KIB  # some are signed by ten people


async def read_directory(
    source: DirectorySource, keyring: Keyring | None, client: MirrorClient, port: RunPort, *, seen: int
) -> Found:
    """Read which file fits the pattern and has the newest version.

    Raises:
        TrustError: the list of checksums is not what one of the keys has signed, or is older than *seen*.
        PeerError: a page or a list is too large.
        Unavailable: it cannot be read now.
    """
    plain = keyring is not None
    if not source.sums:
        port.progress("reading the directory")
        page = await read_file(client, source.url, bytes_max=limits.LISTING_BYTES_MAX, plain=plain)
        return await trio.to_thread.run_sync(_from_page, source, page)
    port.progress(f"reading {source.sums}")
    data = await read_file(client, source.url + source.sums, bytes_max=limits.SUMS_BYTES_MAX, plain=plain)
    date = 0
    if keyring is not None and source.signature:
        signature = await read_file(
            client, source.url + source.signature, bytes_max=_SIGNATURE_BYTES_MAX, plain=plain
        )
        date = await trio.to_thread.run_sync(keyring.check_detached, data, signature, source.sums)
    elif keyring is not None:
        data = await trio.to_thread.run_sync(keyring.open_clear, data, source.sums)
    if date:
        check_date(date, source.sums, seen=seen, now=int(time.time()))
    offer = await trio.to_thread.run_sync(_from_sums, source, data, plain)
    return Found([offer] if offer is not None else [], date, {})


def _from_page(source: DirectorySource, page: bytes) -> Found:
    names = parse_links(page.decode("utf-8", "replace"), source.url)
    offer = newest_file(source, names, {}, signed=False)
    return Found([offer] if offer is not None else [], 0, {})


def _from_sums(source: DirectorySource, data: bytes, signed: bool) -> Offer | None:
    sums = parse_sums(data.decode("utf-8", "replace"))
    return newest_file(source, sums, sums, signed=signed)
