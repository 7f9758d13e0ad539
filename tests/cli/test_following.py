"""From a vendor's repository to a release of the fleet: followed, proposed, fetched, signed, published."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mirror_servers import NGINX, WebAuthority, open_nginx
from serverkit import signer as key_of
from vendor import APT_FTPARCHIVE, DPKG_DEB, GPG, AptRepository, Signer, open_signer

from p2pdist.cli.proposals import Fetched, _check, _joined, _table
from p2pdist.errors import PeerError
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.sign.main import run as sign_run
from p2pdist.sign.packages import read_manifest
from p2pdist.trust.keys import SealedKeyFile
from p2pdist.wire import api as wire

from .conftest import OpenShell, Shell

pytestmark = [
    pytest.mark.slow,  # a whole server
    pytest.mark.skipif(
        None in (NGINX, APT_FTPARCHIVE, DPKG_DEB, GPG), reason="needs nginx, apt-utils, dpkg-deb and GnuPG"
    ),
]

PASSPHRASE = "correct horse"


@pytest.fixture
def vendor_key() -> Iterator[Signer]:
    with open_signer() as opened:
        opened.make("vendor")
        yield opened


class Desk:
    """The signing tool, with one person who may sign everything; the admin server's key is the test's."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("P2PDIST_SIGN_KDF", "interactive")
        home.mkdir()
        self.home = home
        self.passphrase = home / "passphrase"
        self.passphrase.touch(mode=0o600)
        self.passphrase.write_text(PASSPHRASE + "\n")
        keys = home / "repository" / "keys"
        keys.mkdir(parents=True)
        online = SealedKeyFile._seal(
            "online", bytes(key_of("online")._key), PASSPHRASE.encode(), "interactive"
        )
        online.save(keys / "online.key")
        sealed = ("--passphrase-file", self.passphrase, "--kdf", "interactive")
        self("init", "--fleet", "acme", "--root", "alice", "--threshold", 1, *sealed)
        self("channel", "add", "stable", "--key", "alice")
        self.publish("first")
        metadata = home / "first" / "metadata"
        (root,) = [path for path in metadata.rglob("*") if path.name == "1.root.json"]
        self.root = root.read_bytes()

    def __call__(self, *arguments: object) -> None:
        words = [*map(str, arguments), "--repository", str(self.home / "repository")]
        assert sign_run(words) == 0

    def publish(self, name: str) -> Path:
        self("sign", "--yes", "--passphrase-file", self.passphrase)
        self("publish", self.home / name, "--passphrase-file", self.passphrase)
        return self.home / name


@asynccontextmanager
async def web(tmp_path: Path, directory: Path, *, rules: str = "") -> AsyncIterator[tuple[str, Path]]:
    """Serve a directory; yield its address and the CA of whoever serves it."""
    authority = WebAuthority(tmp_path)
    async with open_nginx(tmp_path / "nginx", authority, directory, rules=rules) as server:
        yield server.url, authority.ca_file


async def proposed(shell: Shell, *arguments: str) -> dict[str, wire.ProposalInfo]:
    found = await shell.json(wire.ProposalList, "proposal", "list", *arguments)
    return {f"{each.product} {each.version}": each for each in found.proposals}


async def test_a_package_of_an_apt_repository_becomes_a_signed_release_with_its_mirror(
    open_shell: OpenShell, tmp_path: Path, vendor_key: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = AptRepository(tmp_path / "www" / "debian", vendor_key, "vendor")
    for package, version in (("tool", "1.0-1"), ("tool", "1:1.0-1"), ("other", "3")):
        repository.add(package, version)
    repository.publish()
    (tmp_path / "vendor.gpg").write_bytes(vendor_key.export("vendor"))
    desk: Any = Desk(tmp_path / "desk", monkeypatch)
    async with (
        web(tmp_path, repository.directory) as (url, ca_file),
        open_shell(desk, mirrors=MirrorSettings(ca_file=ca_file)) as shell,
    ):
        await shell("publish", str(desk.home / "first"))
        what = (url, "stable", "main", "--key", str(tmp_path / "vendor.gpg"), "--package", "tool*")
        shown = await shell("follow", "apt", *what, "--wait")
        assert "tool 1:1.0-1 amd64" in shown and "1 offered" in shown
        assert [task.kind for task in (await shell.json(wire.TaskList, "task", "list")).tasks] == ["follow"]
        assert "tool" in await shell("proposal", "list")
        proposal = (await proposed(shell))["tool 1:1.0-1"]
        assert "signed by the vendor" in await shell("proposal", "show", proposal.id)

        to = tmp_path / "fetched"
        fetch = ("proposal", "fetch", proposal.id[:6], str(to), "--web-ca", str(ca_file))
        fetched = await shell.json(Fetched, *fetch)
        assert fetched.sha256 == proposal.sha256
        assert f"--manifest {to / 'releases.toml'}" in await shell(*fetch)

        desk("add", "stable", "--manifest", to / "releases.toml")
        await shell("publish", str(desk.publish("second")))
        (release,) = shell.fleet.service.catalog.releases.values()
        assert (release.product, release.version, release.sha256) == ("tool", "1+1.0-1", proposal.sha256)
        assert [mirror.url for mirror in release.mirrors] == [f"{url}/pool/tool_1.0-1_amd64.deb"]
        assert await proposed(shell) == {}
        done = (await proposed(shell, "--state", "published"))["tool 1:1.0-1"]
        assert (done.state, done.release) == ("published", release.target)


async def test_a_tool_in_a_directory_needs_to_be_told_how_it_is_installed(
    open_shell: OpenShell, tmp_path: Path
) -> None:
    directory = tmp_path / "www" / "tool"
    directory.mkdir(parents=True)
    (directory / "tool-1.2.run").write_bytes(b"#!/bin/sh\n")
    async with (
        web(tmp_path, directory, rules="autoindex on;") as (url, ca_file),
        open_shell(None, mirrors=MirrorSettings(ca_file=ca_file)) as shell,
    ):
        what = ("directory", f"{url}/", "tool-{version}.run", "--product", "tool")
        await shell("follow", *what, "--wait")
        proposal = (await proposed(shell))["tool 1.2"]
        to = tmp_path / "fetched"
        fetch = ("proposal", "fetch", proposal.id, str(to), "--web-ca", str(ca_file))
        await shell(*fetch, code=2)
        assert "--command" in shell.stderr
        said = await shell(*fetch, "--command", "{artifact} --quiet", "--platform", "linux-x86_64")
        assert "the vendor says no checksum" in said
        assert (to / "tool-1.2.run").read_bytes() == b"#!/bin/sh\n"
        await shell("proposal", "drop", proposal.id)
        task = (await shell.json(wire.TaskList, "task", "list")).tasks[0]
        await shell("task", "run", task.id, "--wait")
        assert await proposed(shell) == {}
        assert (await proposed(shell, "--all"))["tool 1.2"].state == "dropped"


async def test_a_vendor_that_sends_something_else_than_its_index_says_is_found_out(
    open_shell: OpenShell, tmp_path: Path, vendor_key: Signer
) -> None:
    repository = AptRepository(tmp_path / "www" / "debian", vendor_key, "vendor")
    package = repository.add("tool", "1.0-1")
    repository.publish()
    (tmp_path / "vendor.gpg").write_bytes(vendor_key.export("vendor"))
    async with (
        web(tmp_path, repository.directory) as (url, ca_file),
        open_shell(None, mirrors=MirrorSettings(ca_file=ca_file)) as shell,
    ):
        what = (url, "stable", "main", "--key", str(tmp_path / "vendor.gpg"), "--package", "tool")
        await shell("follow", "apt", *what, "--wait")
        proposal = (await proposed(shell))["tool 1.0-1"]
        honest = package.read_bytes()
        fetch = ("proposal", "fetch", proposal.id, str(tmp_path / "to"), "--web-ca", str(ca_file))
        package.write_bytes(honest[:-1] + b"x")
        await shell(*fetch, code=4)
        assert "is not what the vendor's index says" in shell.stderr
        package.write_bytes(honest + b"x")
        await shell(*fetch, code=3)
        package.unlink()
        await shell(*fetch, code=5)
        assert list((tmp_path / "to").iterdir()) == []

        repository.in_release.write_bytes(vendor_key.clear(b"Suite: stable\n", "vendor"))
        await shell("task", "run", proposal.task, "--wait", code=6)
        assert "no usable Date" in shell.stderr
        assert list(await proposed(shell)) == ["tool 1.0-1"], "what cannot be read says nothing"


async def test_what_cannot_be_followed_is_said_at_once(
    open_shell: OpenShell, tmp_path: Path, vendor_key: Signer
) -> None:
    key = tmp_path / "vendor.gpg"
    key.write_bytes(vendor_key.export("vendor"))
    (tmp_path / "empty").write_bytes(b"nothing")
    apt = ("apt", "https://vendor.example", "stable")
    some = ("--package", "x", "--key", str(key))
    async with open_shell() as shell:
        for arguments, said in (
            ((*apt, "main", "--package", "x", "--key", str(tmp_path / "empty")), "holds no OpenPGP keys"),
            ((*apt, *some), "has no components"),
            ((*apt[:2], "../up/", *some), "suite ../up/"),
            (("apt", "ftp://vendor.example", "stable", "main", *some), "cannot be followed"),
            ((*apt, "main", *some, "--every", "whenever"), "not a schedule"),
            (("directory", "http://vendor.example/", "x-{version}", "--product", "x"), "over plain HTTP"),
            (("directory", "https://vendor.example/", "x.run", "--product", "x"), "not a pattern"),
        ):
            await shell("follow", *arguments, "--output", "json", code=2)
            assert said in json.loads(shell.stderr)["error"]
        await shell("proposal", "show", "abc", code=2)
        assert "no proposal" in shell.stderr
        assert "nothing is proposed" in await shell("proposal", "list")


def test_files_that_were_fetched_into_one_directory_share_its_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "releases.toml"
    for path, version in (("a.deb", "1"), ("b.deb", "2"), ("a.deb", '3"\n[[x]]')):
        manifest.write_text(_joined(manifest, {"path": path, "product": "p", "version": version}))
    assert [(Path(each.path).name, each.version) for each in read_manifest(manifest)] == [
        ("b.deb", "2"),
        ("a.deb", '3"\n[[x]]'),
    ]


def info(**fields: Any) -> wire.ProposalInfo:
    """A proposal as a server may say it."""
    usual = {
        "id": "5f0c", "product": "tool", "version": "1:2.0", "architecture": "amd64", "state": "new",
        "file": "tool.deb", "url": "https://vendor.example/tool.deb", "size_bytes": 7, "sha256": "ab" * 32,
        "signed": True, "task": "t", "first": 0, "last": 0, "release": "",
    }  # fmt: skip
    return wire.ProposalInfo(**{**usual, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"file": "../../.profile"},
        {"file": "/etc/passwd"},
        {"file": ".profile"},
        {"file": ""},
        {"url": "file:///etc/passwd"},
        {"url": "http://vendor.example/tool.deb", "sha256": ""},
        {"version": 'x"\n[[release]]'},
        {"sha256": "AB"},
    ],
)
def test_what_a_server_says_of_a_proposal_is_not_believed_where_it_cannot_be(fields: dict[str, Any]) -> None:
    _check(info())
    with pytest.raises(PeerError, match="what cannot be"):
        _check(info(**fields))


def test_only_an_address_with_tls_is_named_as_a_mirror() -> None:
    named = _table(info(), command="", to="", platform="")
    assert (named["mirrors"], named["version"]) == (["https://vendor.example/tool.deb"], "1+2.0")
    plain = _table(info(url="http://vendor.example/tool.deb"), command="", to="", platform="")
    assert "mirrors" not in plain
