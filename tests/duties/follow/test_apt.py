"""An apt repository as its tools make it, behind nginx with TLS; and what can be wrong with one."""

from __future__ import annotations

import lzma
import re
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from followed import Followed, run_follow
from mirror_servers import (
    NGINX,
    Asked,
    Nginx,
    WebAuthority,
    free_port,
    open_nginx,
    open_server,
    wait_listening,
)
from vendor import APT_FTPARCHIVE, DPKG_DEB, GPG, AptRepository, Signer

from p2pdist import limits
from p2pdist.core.listings import check_directory
from p2pdist.core.mirrors import MirrorFailed
from p2pdist.errors import P2PDistError, PeerError, TrustError, UsageError
from p2pdist.wire.following import AptSource, DirectorySource

pytestmark = pytest.mark.skipif(
    None in (NGINX, APT_FTPARCHIVE, DPKG_DEB, GPG), reason="needs nginx, apt-utils, dpkg-deb and GnuPG"
)


class Vendor:
    """The repository, who serves it, and the run that follows it."""

    def __init__(self, repository: AptRepository, web: Nginx, authority: WebAuthority, key: bytes) -> None:
        self.repository = repository
        self.web = web
        self.authority = authority
        self.key = key

    async def follow(self, *keys: bytes, seen: int = 0, **fields: Any) -> Followed:
        usual = {
            "url": self.web.url,
            "suite": "stable",
            "components": ["main"],
            "architectures": ["amd64"],
            "packages": ["tool*"],
        }
        source = AptSource(**{**usual, **fields})
        with trio.fail_after(30):
            return await run_follow(source, *(keys or (self.key,)), ca_file=self.authority.ca_file, seen=seen)

    async def refusal(self, family: type[P2PDistError] = TrustError, **fields: Any) -> str:
        with pytest.raises(family) as caught:
            await self.follow(**fields)
        return str(caught.value)


@pytest.fixture
async def vendor(tmp_path: Path, signer: Signer) -> AsyncIterator[Vendor]:
    """A vendor with tool 1.0 and 1.9, and something else."""
    repository = AptRepository(tmp_path / "www" / "debian", signer, "vendor")
    for package, version in (("tool", "1.0-1"), ("tool", "1.9-1"), ("other", "3")):
        repository.add(package, version)
    repository.publish()
    authority = WebAuthority(tmp_path)
    async with open_nginx(tmp_path / "nginx", authority, repository.directory) as web:
        yield Vendor(repository, web, authority, signer.export("vendor"))


async def test_the_newest_version_is_offered_with_what_the_signed_index_says_of_it(vendor: Vendor) -> None:
    found = await vendor.follow()
    assert found.ended.outcome == "done"
    assert found.offers is not None
    (offer,) = found.offers.offers
    assert (offer.product, offer.version, offer.architecture) == ("tool", "1.9-1", "amd64")
    assert offer.url == f"{vendor.web.url}/pool/tool_1.9-1_amd64.deb"
    assert offer.size_bytes == (vendor.repository.pool / offer.file).stat().st_size
    assert found.offers.date > 1_700_000_000


async def test_a_new_version_is_found_and_one_that_was_taken_back_is_not_any_more(vendor: Vendor) -> None:
    path = vendor.repository.add("tool", "1:0.5")
    vendor.repository.publish()
    assert (await vendor.follow()).versions == {"tool": "1:0.5"}
    path.unlink()
    vendor.repository.publish()
    assert (await vendor.follow()).versions == {"tool": "1.9-1"}


@pytest.mark.parametrize("packing", ["xz", "gz", ""])
async def test_an_index_is_read_however_it_is_packed_and_without_by_hash_too(
    vendor: Vendor, packing: str
) -> None:
    for path in vendor.repository.packages.glob("Packages*"):
        path.unlink()
    vendor.repository.index(packings=(packing,))
    for path in (vendor.repository.packages / "by-hash" / "SHA256").iterdir():
        path.unlink()
    for by_hash in ("yes", "no"):
        vendor.repository.sign(vendor.repository.release(by_hash=by_hash))
        assert (await vendor.follow()).versions == {"tool": "1.9-1"}


async def test_a_flat_repository_is_read_too(vendor: Vendor) -> None:
    repository = vendor.repository
    (repository.directory / "Packages").write_bytes((repository.packages / "Packages").read_bytes())
    text = repository.release().replace(b"main/binary-amd64/Packages\n", b"Packages\n")
    (repository.directory / "InRelease").write_bytes(repository.signer.clear(text, "vendor"))
    assert (await vendor.follow(suite="./", components=[])).versions == {"tool": "1.9-1"}


async def test_nothing_that_is_wanted_is_no_success_and_is_said(vendor: Vendor) -> None:
    found = await vendor.follow(packages=["nothing"])
    assert (found.ended.outcome, found.versions) == ("failed", {})


async def test_an_index_that_is_not_there_is_named(vendor: Vendor) -> None:
    assert "contrib/binary-amd64" in await vendor.refusal(UsageError, components=["main", "contrib"])
    assert "answers 404" in await vendor.refusal(MirrorFailed, suite="testing")


# Who has signed it ------------------------------------------------------------------------------------


async def test_an_altered_release_and_one_by_another_key_are_refused(vendor: Vendor) -> None:
    path = vendor.repository.in_release
    honest = path.read_bytes()
    path.write_bytes(honest.replace(b"Suite: stable", b"Suite: stable2"))
    assert "none of the keys has signed this" in await vendor.refusal()
    vendor.repository.sign(vendor.repository.release(), "other")
    assert "none of the keys has signed this" in await vendor.refusal()
    path.write_bytes(vendor.repository.release())
    assert "not signed in clear text" in await vendor.refusal()
    path.write_bytes(honest)
    await vendor.follow()


async def test_a_key_that_has_expired_is_refused_by_its_name(vendor: Vendor, signer: Signer) -> None:
    text = signer.clear(vendor.repository.release(), "old", at="20250110T000000")
    vendor.repository.in_release.write_bytes(text)
    with pytest.raises(TrustError, match="has expired on 2025-01-31"):
        await vendor.follow(signer.export("old"))


async def test_a_release_that_has_expired_is_refused(vendor: Vendor) -> None:
    vendor.repository.sign(vendor.repository.release(valid_until="Sat, 01 Nov 2025 00:00:00 UTC"))
    assert "has expired on 2025-11-01" in await vendor.refusal()


async def test_an_older_release_than_one_that_was_seen_is_refused(vendor: Vendor) -> None:
    seen = (await vendor.follow()).offers
    assert seen is not None
    vendor.repository.sign(vendor.repository.release(date="Sat, 01 Nov 2025 00:00:00 UTC"))
    assert "is older than the one of" in await vendor.refusal(seen=seen.date)
    await vendor.follow(seen=0)


async def test_the_signed_release_of_another_suite_is_refused(vendor: Vendor) -> None:
    vendor.repository.sign(vendor.repository.release(suite="testing"))
    assert "is of testing, and not of stable" in await vendor.refusal()


# What the indexes hold ---------------------------------------------------------------------------------


async def test_an_index_that_is_not_what_was_signed_is_refused(vendor: Vendor) -> None:
    for path in vendor.repository.packages.rglob("*"):
        if path.is_file():
            path.write_bytes(lzma.compress(b"Package: tool\nVersion: 99\n"))
    assert "is not what the signed InRelease says" in await vendor.refusal()
    for path in vendor.repository.packages.rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(300_000))
    assert "larger than the signed" in await vendor.refusal()


async def test_an_index_that_unpacks_to_a_flood_is_cut_off(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PACKAGES_BYTES_MAX", 24 * limits.MIB)
    paragraph = b"Package: tool\nVersion: 1\n" + b"X: " + b"y" * 60_000 + b"\n\n"
    flood = paragraph * (limits.PACKAGES_BYTES_MAX // len(paragraph) + 20)
    vendor.repository.write_packages(flood, packings=("xz",))
    for name in ("Packages", "Packages.gz"):
        (vendor.repository.packages / name).unlink()
    vendor.repository.sign(vendor.repository.release())
    del flood
    tracemalloc.start()
    try:
        assert f"more than {limits.PACKAGES_BYTES_MAX} bytes unpacked" in await vendor.refusal(PeerError)
        assert tracemalloc.get_traced_memory()[1] < 10 * limits.MIB
    finally:
        tracemalloc.stop()


async def test_a_packed_index_with_something_behind_its_end_is_refused(vendor: Vendor) -> None:
    text = (vendor.repository.packages / "Packages").read_bytes()
    for path in vendor.repository.packages.glob("Packages*"):
        path.unlink()
    for packed in (lzma.compress(text) + b"more", lzma.compress(text)[:-20], b"not packed"):
        (vendor.repository.packages / "Packages.xz").write_bytes(packed)
        vendor.repository.sign(vendor.repository.release(by_hash="no"))
        await vendor.refusal(PeerError)


async def test_a_package_that_would_be_outside_of_the_repository_is_left_out(vendor: Vendor) -> None:
    text = (vendor.repository.packages / "Packages").read_bytes()
    text = re.sub(rb"(?m)^Filename: pool/tool_1.9-1_amd64.deb$", b"Filename: ../../tool.deb", text)
    vendor.repository.write_packages(text)
    vendor.repository.sign(vendor.repository.release())
    found = await vendor.follow()
    assert (found.ended.outcome, found.ended.figures["left-out"]) == ("partly", 1)
    assert found.versions == {"tool": "1.0-1"}


async def test_a_release_without_an_end_is_cut_off(tmp_path: Path, signer: Signer) -> None:
    authority = WebAuthority(tmp_path)

    async def endless(stream: trio.abc.Stream, asked: Asked) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send_all(b"Origin: vendor\n" * 4_000)

    async with open_server(authority, endless) as url:
        source = AptSource(
            url=url, suite="stable", components=["main"], architectures=["amd64"], packages=["*"]
        )
        with pytest.raises(PeerError, match="more than"), trio.fail_after(20):
            await run_follow(source, signer.export("vendor"), ca_file=authority.ca_file)


async def test_what_is_signed_may_come_without_tls_and_the_rest_may_not(vendor: Vendor) -> None:
    port = free_port()
    served = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    process = subprocess.Popen(
        [*served, "--directory", str(vendor.repository.directory)], stderr=subprocess.DEVNULL
    )
    try:
        await wait_listening(port)
        assert (await vendor.follow(url=f"http://127.0.0.1:{port}")).versions == {"tool": "1.9-1"}
        with pytest.raises(UsageError, match="plain HTTP"):
            check_directory(
                DirectorySource(url=f"http://127.0.0.1:{port}/", pattern="tool-{version}", product="tool"),
                signed=False,
            )
    finally:
        process.kill()
        process.wait()
