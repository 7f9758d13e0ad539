"""A plain directory of a web server: nginx's own page, checksums with and without signature, and tricks."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from followed import Followed, run_follow
from mirror_servers import NGINX, Asked, Nginx, WebAuthority, open_nginx, open_server
from vendor import GPG, Signer

from p2pdist.errors import P2PDistError, PeerError, TrustError, UsageError
from p2pdist.wire.following import DirectorySource

pytestmark = pytest.mark.skipif(None in (NGINX, GPG), reason="needs nginx and GnuPG")


class Vendor:
    """A directory with tool-1.9.run and tool-1.10.run, and the run that follows it."""

    def __init__(self, directory: Path, web: Nginx, authority: WebAuthority) -> None:
        self.directory = directory
        self.web = web
        self.authority = authority

    def sums(self) -> bytes:
        """Write the checksums as ``sha256sum`` does."""
        names = sorted(path.name for path in self.directory.glob("*.run"))
        ran = subprocess.run(["sha256sum", *names], cwd=self.directory, capture_output=True, check=True)
        (self.directory / "SHA256SUMS").write_bytes(ran.stdout)
        return ran.stdout

    async def follow(self, *keys: bytes, seen: int = 0, **fields: Any) -> Followed:
        usual = {"url": f"{self.web.url}/", "pattern": "tool-{version}.run", "product": "tool"}
        with trio.fail_after(30):
            source = DirectorySource(**{**usual, **fields})
            return await run_follow(source, *keys, ca_file=self.authority.ca_file, seen=seen)

    async def refusal(self, *keys: bytes, family: type[P2PDistError] = TrustError, **fields: Any) -> str:
        with pytest.raises(family) as caught:
            await self.follow(*keys, **fields)
        return str(caught.value)


@pytest.fixture
async def vendor(tmp_path: Path) -> AsyncIterator[Vendor]:
    directory = tmp_path / "www" / "tool"
    directory.mkdir(parents=True)
    for version in ("1.9", "1.10"):
        (directory / f"tool-{version}.run").write_bytes(version.encode())
    authority = WebAuthority(tmp_path)
    async with open_nginx(tmp_path / "nginx", authority, directory, rules="autoindex on;") as web:
        yield Vendor(directory, web, authority)


async def test_the_newest_file_on_the_page_is_offered_without_a_checksum(vendor: Vendor) -> None:
    found = await vendor.follow()
    assert found.offers is not None
    (offer,) = found.offers.offers
    assert (offer.version, offer.file, offer.sha256, offer.signed) == ("1.10", "tool-1.10.run", "", False)
    assert offer.url == f"{vendor.web.url}/tool-1.10.run"
    (vendor.directory / "tool-1.10.run").unlink()
    assert (await vendor.follow()).versions == {"tool": "1.9"}


async def test_a_list_of_checksums_says_the_hash(vendor: Vendor) -> None:
    vendor.sums()
    found = await vendor.follow(sums="SHA256SUMS")
    assert found.offers is not None
    (offer,) = found.offers.offers
    assert (offer.sha256, offer.signed) == (hashlib.sha256(b"1.10").hexdigest(), False)


async def test_a_detached_signature_over_the_list_is_checked_and_has_its_date(
    vendor: Vendor, signer: Signer
) -> None:
    signature = vendor.directory / "SHA256SUMS.asc"
    signature.write_bytes(signer.detached(vendor.sums(), "vendor"))
    key, fields = signer.export("vendor"), {"sums": "SHA256SUMS", "signature": "SHA256SUMS.asc"}
    found = await vendor.follow(key, **fields)
    assert found.offers is not None
    assert found.offers.offers[0].signed
    assert abs(found.offers.date - time.time()) < 60
    assert "none of the keys" in await vendor.refusal(signer.export("other"), **fields)
    signature.write_bytes(signer.detached(vendor.sums(), "vendor", at="20260101T000000"))
    assert "is older than" in await vendor.refusal(key, seen=found.offers.date, **fields)
    (vendor.directory / "SHA256SUMS").write_bytes(b"ab" * 32 + b"  tool-2.0.run\n")
    assert "none of the keys" in await vendor.refusal(key, **fields)


async def test_a_list_that_is_signed_in_clear_text_is_taken_as_well(vendor: Vendor, signer: Signer) -> None:
    (vendor.directory / "SHA256SUMS").write_bytes(signer.clear(vendor.sums(), "vendor"))
    assert (await vendor.follow(signer.export("vendor"), sums="SHA256SUMS")).versions == {"tool": "1.10"}
    vendor.sums()
    assert "not signed" in await vendor.refusal(signer.export("vendor"), sums="SHA256SUMS")


async def test_a_page_without_an_end_and_one_that_stands_elsewhere_are_refused(tmp_path: Path) -> None:
    authority = WebAuthority(tmp_path)

    async def wrong(stream: trio.abc.Stream, asked: Asked) -> None:
        if asked.path == "/away/":
            await stream.send_all(
                b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
            )
            return
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(b"<a href='x'>x</a>\n" * 4_000)

    async with open_server(authority, wrong) as url:
        for path, said in (("/endless/", "has more than"), ("/away/", "redirects to what is not https")):
            source = DirectorySource(
                url=url.replace("/file", path), pattern="tool-{version}.run", product="tool"
            )
            with pytest.raises((PeerError, P2PDistError), match=said), trio.fail_after(20):
                await run_follow(source, ca_file=authority.ca_file)


async def test_a_node_that_dials_nobody_says_so_at_once(tmp_path: Path) -> None:
    source = DirectorySource(url="https://127.0.0.1:1/", pattern="tool-{version}.run", product="tool")
    with pytest.raises(UsageError, match="dials nobody"):
        await run_follow(source, ca_file=tmp_path / "none", dials=False)
