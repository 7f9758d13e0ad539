"""The signing tool, as people use it: commands in, files and words out."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import pytest
import zstandard

from p2pdist.errors import UsageError
from p2pdist.sign.content import parse_size
from p2pdist.sign.main import run
from p2pdist.trust.keys import IdentityKey, load_public_key
from p2pdist.trust.publicationdir import read_metadata
from p2pdist.trust.verifier import Verifier
from p2pdist.wire.requests import Bundle

pytestmark = pytest.mark.slow  # real processes, many kills or a whole server: not in the fast subset

if TYPE_CHECKING:
    from conftest import Desk

NODE = IdentityKey.generate().node
MakeDesk = "Callable[[str], Desk]"


def tree(home: Path, name: str = "app") -> Path:
    directory = home / name
    (directory / "bin").mkdir(parents=True)
    (directory / "bin" / "app").write_text("#!/bin/sh\nexit 0\n")
    (directory / "bin" / "app").chmod(0o755)
    (directory / "data").write_bytes(b"x" * 200_000)
    return directory


def debian_package(home: Path, version: str = "1:2.0-1") -> Path:
    root = home / "package"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        f"Package: hello\nVersion: {version}\nArchitecture: amd64\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: test\n"
    )
    built = home / "hello.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", root, built], check=True, capture_output=True
    )
    return built


# From nothing to a device ------------------------------------------------------------------------


def test_from_keys_on_two_machines_to_a_release_that_a_device_believes(
    make_desk: Callable[[str], Desk], tmp_path: Path
) -> None:
    office, home = make_desk("office"), make_desk("home")
    # Bob makes his key where he is, and hands out the public half only.
    home.done("key", "new", "bob", "--file", home.home / "bob.key", "--passphrase-file", home.passphrase)
    home.done("key", "public", home.home / "bob.key", "--to", home.home / "bob.pub")
    office.done(
        *("init", "--fleet", "acme", "--root", "alice", "--root", home.home / "bob.pub", "--root", "carol"),
        *("--threshold", 2, "--passphrase-file", office.passphrase),
    )
    office.done("channel", "add", "stable", "--key", "alice", "--key", "bob", "--threshold", 2)
    office.done("add", "stable", tree(office.home), "--product", "app", "--version", "3.1")
    office.done("grant", NODE, "--scope", "/emea", "--address", "10.0.0.2:7600")
    assert {entry["role"] for entry in office.sign("alice")["signed"]} == {
        "root",
        "targets",
        "points",
        "channel-stable",
    }
    assert "signatures are missing" in office.refused(
        2, "publish", office.home / "publication", "--passphrase-file", office.passphrase
    )
    # The drafts cross the air gap and come back signed.
    request = tmp_path / "stick" / "request.json"
    request.parent.mkdir()
    office.done("export", request)
    assert "the release stable/app/3.1/app-3.1.tar.zst is added" in home.done("diff", "--request", request)
    home.done(
        *("sign", "--request", request, "--key", home.home / "bob.key"),
        *("--passphrase-file", home.passphrase, "--yes"),
    )
    assert len(office.data("import", request)["taken"]) == 4
    published = office.publish()
    assert published["releases"] == ["stable/app/3.1/app-3.1.tar.zst"]
    assert published["grants"] == [NODE]
    office.done("verify", office.home / "publication")
    files = read_metadata(office.home / "publication")
    device = Verifier(tmp_path / "device", files["1.root.json"])
    from p2pdist.sign.options import time_now

    catalog = device.update(Bundle(files=files), now=time_now())
    release = next(iter(catalog.releases.values()))
    artifact = office.home / "publication" / "artifacts" / release.info_hash
    with artifact.open("rb") as file, zstandard.open(file, "rb") as plain:
        names = tarfile.open(fileobj=plain, mode="r|").getnames()  # noqa: SIM115 (a stream, read to its end)
    assert "bin/app" in names


# Ceremony and keys -------------------------------------------------------------------------------


def test_the_ceremony_makes_one_private_file_for_each_person(desk: Desk) -> None:
    keys = sorted((desk.repository / "keys").iterdir())
    assert [key.stem for key in keys] == ["alice", "bob", "carol", "dev", "lead", "online", "ops"]
    assert all(key.stat().st_mode & 0o777 == 0o600 for key in keys)
    assert (desk.repository / "keys").stat().st_mode & 0o777 == 0o700
    assert not any(b"correct horse" in key.read_bytes() for key in keys)


def test_a_ceremony_is_not_held_over_another(desk: Desk) -> None:
    error = desk.refused(
        2, "init", "--fleet", "x", "--root", "a", "--threshold", 1, "--passphrase-file", desk.passphrase
    )
    assert "already" in error


def test_an_interrupted_ceremony_goes_on_with_the_keys_that_are_there(
    make_desk: Callable[[str], Desk],
) -> None:
    desk = make_desk("fresh")
    arguments = ("init", "--fleet", "acme", "--root", "alice", "--threshold", 1)
    desk.done(*arguments, "--passphrase-file", desk.passphrase)
    before = (desk.repository / "keys" / "alice.key").read_bytes()
    (desk.repository / "current").unlink()
    assert desk.data(*arguments, "--passphrase-file", desk.passphrase)["keys_made"] == []
    assert (desk.repository / "keys" / "alice.key").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--root", "alice", "--threshold", 2), "2 of 1 keys cannot sign"),
        (("--root", "alice", "--root", "alice", "--threshold", 1), "stands twice"),
        (("--root", "../alice", "--threshold", 1), "no file"),
        (("--root", "alice", "--threshold", 1, "--online", "alice"), "online key cannot be"),
        (("--root", "alice", "--threshold", 1, "--timestamp-hours", 0), "too short or too long"),
    ],
)
def test_a_ceremony_that_makes_no_sense_leaves_no_repository(
    make_desk: Callable[[str], Desk], arguments: tuple[object, ...], message: str
) -> None:
    desk = make_desk("fresh")
    sealed = ("--passphrase-file", desk.passphrase)
    assert message in desk.refused(2, "init", "--fleet", "acme", *arguments, *sealed)
    assert "init" in desk.refused(2, "status")


def test_a_wrong_passphrase_changes_nothing(desk: Desk) -> None:
    wrong = desk.file("wrong", b"battery staple")
    wrong.chmod(0o600)
    before = desk.data("status")
    error = desk.refused(2, "sign", "--yes", "--passphrase-file", wrong)
    assert "does not open the key of" in error
    assert desk.data("status") == before


def test_a_passphrase_file_that_others_can_read_is_refused(desk: Desk) -> None:
    desk.passphrase.chmod(0o644)
    assert "chmod 600" in desk.refused(2, "sign", "--yes", "--passphrase-file", desk.passphrase)


def test_each_key_can_have_a_passphrase_file_of_its_own(desk: Desk) -> None:
    other = desk.file("other", b"battery staple\n")
    other.chmod(0o600)
    desk.done(
        *("key", "passphrase", "bob", "--old-passphrase-file", desk.passphrase),
        *("--passphrase-file", other),
    )
    files = ("--passphrase-file", desk.passphrase, "--passphrase-file", f"bob={other}")
    signed = desk.data("sign", "--key", "alice", "--key", "bob", "--yes", *files)["signed"]
    assert [entry["role"] for entry in signed] == ["root", "root"]


def test_without_a_terminal_a_missing_passphrase_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Path(os.devnull).open())  # noqa: SIM115 (closed with the process)
    assert "use --passphrase-file" in desk.refused(2, "sign", "--key", "alice", "--yes")
    sys.stdin.close()


def test_the_key_list_says_what_each_may_sign(desk: Desk) -> None:
    roles = {row["name"]: row["roles"] for row in desk.data("key", "list")["keys"]}
    assert roles["alice"] == ["root"]
    assert roles["dev"] == ["channel-stable"]
    assert roles["online"] == ["online"]


def test_a_public_key_is_printed_for_the_others(desk: Desk) -> None:
    path = desk.file("alice.pub", desk.done("key", "public", "alice").encode())
    assert load_public_key(path).keyid == load_public_key(desk.repository / "keys" / "alice.key").keyid


def test_a_key_is_never_overwritten(desk: Desk) -> None:
    assert "exists already" in desk.refused(2, "key", "new", "alice", "--passphrase-file", desk.passphrase)


def test_a_mistyped_key_is_not_made_up(desk: Desk) -> None:
    error = desk.refused(2, "channel", "add", "beta", "--key", "alcie")
    assert "no key called 'alcie'" in error


# A terminal --------------------------------------------------------------------------------------


def converse(arguments: list[str], answers: list[tuple[bytes, bytes]], repository: Path) -> tuple[int, bytes]:
    """Run the program on a terminal; type each answer after its prompt. Returns all that was shown."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "p2pdist.sign", *arguments, "--repository", str(repository)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(follower)
    shown = b""
    waiting = list(answers)
    while True:
        try:
            data = os.read(leader, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
        if waiting and shown.endswith(waiting[0][0]):
            os.write(leader, waiting.pop(0)[1] + b"\n")
    os.close(leader)
    return process.wait(), shown


def test_on_a_terminal_the_passphrase_is_asked_for_and_never_shown(desk: Desk) -> None:
    code, shown = converse(
        ["sign", "--key", "alice"],
        [(b"[y/N] ", b"y"), (b"out): ", b"wrong one"), (b"out): ", b"correct horse")],
        desk.repository,
    )
    assert code == 0, shown
    assert b"correct horse" not in shown
    assert b"wrong one" not in shown
    assert b"does not open the key of alice; " in shown
    assert b"alice" in shown and b"has signed the trust root" in shown


def test_on_a_terminal_people_come_one_by_one_and_enter_leaves_a_key_out(desk: Desk) -> None:
    """Bob is away, lead mistypes, and carol closes the terminal: what alice signed is kept."""
    code, shown = converse(
        ["sign"],
        [
            (b"[y/N] ", b"y"),
            (b"out): ", b"correct horse"),  # alice
            (b"out): ", b""),  # bob
            (b"out): ", b"\x03"),  # carol
        ],
        desk.repository,
    )
    assert code == 130, shown
    root = desk.data("status")["roles"][0]
    assert [name.split()[0] for name in root["signed"][0]] == ["alice"]
    code, shown = converse(
        ["sign"],
        [
            (b"[y/N] ", b"y"),
            (b"out): ", b"correct horse"),  # bob: now two of three have signed, and carol is not asked
            (b"out): ", b"correct horse"),  # dev
            (b"out): ", b"wrong"),  # lead
            (b"out): ", b"wrong"),
            (b"out): ", b"wrong"),
            (b"out): ", b""),  # ops
        ],
        desk.repository,
    )
    assert code == 0, shown
    assert b"Passphrase for carol" not in shown
    assert b"it is left out" in shown
    rows = {row["role"]: row for row in desk.data("status")["roles"]}
    assert [role for role, row in rows.items() if row["complete"]] == ["root", "channel-stable"]


def test_a_wrong_passphrase_in_a_file_leaves_what_others_signed_before(desk: Desk) -> None:
    wrong = desk.file("wrong", b"battery staple")
    wrong.chmod(0o600)
    files = ("--passphrase-file", desk.passphrase, "--passphrase-file", f"bob={wrong}")
    error = desk.refused(2, "sign", "--yes", *files)
    assert "does not open the key of bob" in error
    assert "signed have alice" in error
    assert len(desk.data("status")["roles"][0]["signed"][0]) == 1


def test_without_a_terminal_only_keys_with_a_passphrase_are_used(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        signed = desk.data("sign", "--yes", "--passphrase-file", f"carol={desk.passphrase}")["signed"]
    assert [entry["key"].split()[0] for entry in signed] == ["carol"]


def test_the_end_of_the_input_is_a_no(desk: Desk) -> None:
    code, shown = converse(["sign", "--key", "alice"], [(b"[y/N] ", b"\x04")], desk.repository)
    assert code == 2
    assert b"nothing was signed" in shown
    assert b"Traceback" not in shown


def test_on_a_terminal_nothing_is_signed_without_a_yes(desk: Desk) -> None:
    code, shown = converse(["sign", "--key", "alice"], [(b"[y/N] ", b"n")], desk.repository)
    assert code == 2
    assert b"the trust root:" in shown
    assert b"nothing was signed" in shown
    assert desk.data("status")["roles"][0]["signed"] == [[]]


@pytest.mark.slow
def test_on_a_terminal_a_new_passphrase_is_asked_for_twice(desk: Desk) -> None:
    code, shown = converse(
        ["key", "new", "dave"],
        [(b"): ", b"one thing"), (b"dave: ", b"another"), (b"): ", b"same here"), (b"dave: ", b"same here")],
        desk.repository,
    )
    assert code == 0, shown
    assert b"different" in shown
    assert b"same here" not in shown


# Releases ----------------------------------------------------------------------------------------


def test_a_tree_becomes_a_release_with_its_recipe(desk: Desk) -> None:
    base = ("--product", "base", "--version", "1", "--to", "/base", "--sequence", 4)
    desk.done("add", "stable", desk.file("base"), *base)
    desk.done(
        *("add", "stable", tree(desk.home), "--product", "app", "--version", "3.1"),
        *("--health-check", "bin/app --selftest", "--keep", 2, "--requires", "base>=4"),
    )
    release = next(r for r in desk.data("list")["releases"] if r["product"] == "app")
    assert release["target"] == "stable/app/3.1/app-3.1.tar.zst"
    assert release["recipe"] == {
        "kind": "tree",
        "unpacked_bytes": 200_017,
        "entries": 3,
        "health_check": ["bin/app", "--selftest"],
        "timeout_s": 60,
        "keep": 2,
    }
    assert release["prerequisites"] == ["base>=4"]
    assert release["sequence"] == 1


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_debian_package_says_itself_what_it_is(desk: Desk) -> None:
    desk.done("add", "stable", debian_package(desk.home))
    release = desk.data("list")["releases"][0]
    assert release["target"] == "stable/hello/1+2.0-1/hello.deb"
    assert release["platform"] == "linux-x86_64"
    assert release["recipe"]["package"] == "hello"
    assert release["recipe"]["version"] == "1:2.0-1"
    assert release["recipe"]["architecture"] == "amd64"


def test_a_command_and_a_file_are_told_by_their_options(desk: Desk) -> None:
    setup = desk.file("setup.run")
    command = ("--command", "{artifact} --quiet 'two words'", "--expect", 0, "--expect", 3)
    desk.done("add", "stable", setup, "--product", "tool", "--version", "7", *command)
    motd = desk.file("motd 5")
    place = ("--to", "/etc/motd", "--mode", "0600", "--reload", "true")
    desk.done("add", "stable", motd, "--product", "motd", "--version", "5", *place)
    releases = {r["product"]: r for r in desk.data("list")["releases"]}
    assert releases["tool"]["recipe"]["arguments"] == ["{artifact}", "--quiet", "two words"]
    assert releases["tool"]["recipe"]["expected_exit_codes"] == [0, 3]
    assert releases["motd"]["recipe"]["mode"] == 0o600
    assert releases["motd"]["target"] == "stable/motd/5/motd_5"


def test_the_agent_itself_has_its_name_and_the_time_in_which_it_has_to_report(desk: Desk) -> None:
    agent = ("--install", "agent", "--version", "2.0.0", "--platform", "linux-x86_64", "--timeout", 120)
    desk.done("add", "stable", desk.file("p2pdist-agent"), *agent)
    (release,) = desk.data("list", "stable")["releases"]
    assert release["target"] == "stable/p2pdist-agent/2.0.0/p2pdist-agent"
    assert release["recipe"] == {"kind": "agent", "timeout_s": 120}


def test_mirrors_are_signed_with_their_priority_and_region(desk: Desk) -> None:
    tool = desk.file("tool")
    mirrors = [*("--mirror", "https://h/x"), *("--mirror", "https://eu.h/x,priority=10,region=eu")]
    desk.done("add", "stable", tool, *COMMAND, *mirrors)
    (release,) = desk.data("list", "stable")["releases"]
    assert release["mirrors"] == ["https://h/x", {"url": "https://eu.h/x", "priority": 10, "region": "eu"}]


def test_several_packages_come_in_by_a_manifest(desk: Desk) -> None:
    tree(desk.home)
    desk.file("motd")
    manifest = desk.file(
        "releases.toml",
        b'[[release]]\npath = "app"\nproduct = "app"\nversion = "1"\n'
        b'[[release]]\npath = "motd"\nproduct = "motd"\nversion = "2"\nto = "/etc/motd"\nsequence = 9\n',
    )
    added = desk.data("add", "stable", "--manifest", manifest)["added"]
    assert [(a["product"], a["sequence"]) for a in added] == [("app", 1), ("motd", 9)]


NAMED = ("content", "--to", "/x", "--product", "a", "--version", "1")
COMMAND = ("--product", "a", "--version", "1", "--command", "{artifact}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "does not exist"),
        (("content",), "does not show how"),
        (("content", "--to", "/etc/x"), "needs a product and a version"),
        (("content", "--to", "x", "--product", "a", "--version", "1"), "cannot be installed so"),
        (("content", "--to", "/x", "--mode", "rw", "--product", "a", "--version", "1"), "octal"),
        (("content", "--install", "tree", "--product", "a", "--version", "1"), "is a file"),
        (("content", "--install", "deb"), "not a Debian package"),
        (("content", "--install", "agent", "--version", "1"), "runs on one kind of machine only"),
        (("content", "--command", "x", "--product", "a", "--version", "../1"), "not a target path"),
        (("content", "--command", "x", "--product", "A b", "--version", "1"), "not a product name"),
        (("content", "content", "--product", "a"), "several packages cannot share"),
        ((), "name packages, or a manifest"),
        (("empty", "--to", "/x", "--product", "a", "--version", "1"), "is empty"),
        ((*NAMED, "--requires", "foo"), "'foo' is not a prerequisite"),
        ((*NAMED, "--requires", "base>=4"), "there is no base in the channel 'stable'"),
        ((*NAMED, "--requires", "a>=1"), "a>=1 cannot be met"),
        ((*NAMED, "--mirror", "http://h/x"), "write https://HOST/PATH"),
        ((*NAMED, "--mirror", "https:///x"), "not a mirror's address"),
        ((*NAMED, "--mirror", "https://h/x,priority=256"), "not a mirror with its priority"),
        ((*NAMED, "--platform", "windows"), "no device has the platform 'windows'"),
        ((*NAMED, "--platform", "amd64"), "did you mean linux-x86_64?"),
        ((*NAMED, "--reload", "echo 'x"), 'the reload "echo \'x" is no command: no closing quotation'),
        (("content", "--product", "a", "--version", "1", "--command", '"'), "the command '\"' is no command"),
        (("content", *COMMAND, "--check", "'"), 'the check "\'" is no command'),
        (("tree", "--product", "a", "--version", "1", "--health-check", "'"), "the health check"),
        (("/dev/zero", *NAMED[1:]), "/dev/zero is neither a file nor a directory"),
    ],
)
def test_a_package_that_cannot_be_a_release_is_explained_and_leaves_nothing(
    desk: Desk, arguments: tuple[str, ...], message: str
) -> None:
    desk.file("content")
    desk.file("empty", b"")
    tree(desk.home, "tree")
    named = ("content", "nowhere", "empty") if "tree" not in arguments[:1] else ("tree",)
    paths = [desk.home / a if a in named else a for a in arguments]
    if "deb" in arguments and shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    assert message in desk.refused(2, "add", "stable", *paths)
    assert desk.data("list")["releases"] == []
    assert list((desk.repository / "content" / "artifacts").iterdir()) == []
    assert [p.name for p in (desk.repository / "content" / "incoming").iterdir()] in ([], [".lock"])


def test_a_batch_with_a_missing_path_takes_nothing(desk: Desk) -> None:
    first = debian_package(desk.home) if shutil.which("dpkg-deb") else tree(desk.home)
    assert "nowhere does not exist" in desk.refused(2, "add", "stable", first, desk.home / "nowhere")
    assert desk.data("list")["releases"] == []


def test_an_unknown_channel_is_told_before_anything_is_hashed(desk: Desk) -> None:
    error = desk.refused(2, "add", "beta", tree(desk.home), "--product", "app", "--version", "1")
    assert "there are: stable" in error


def test_a_tree_with_a_link_out_of_it_is_refused(desk: Desk) -> None:
    directory = tree(desk.home)
    (directory / "escape").symlink_to("/etc/passwd")
    error = desk.refused(2, "add", "stable", directory, "--product", "app", "--version", "1")
    assert "escape" in error


def test_leftovers_of_a_killed_add_are_removed(desk: Desk) -> None:
    leftover = desk.repository / "content" / "incoming" / "tmpkilled"
    leftover.mkdir()
    desk.done("add", "stable", desk.file("f"), "--product", "f", "--version", "1", "--to", "/f")
    assert not leftover.exists()


def test_a_batch_that_failed_half_way_is_repeated_without_new_numbers(desk: Desk) -> None:
    first, second = desk.file("a.conf", b"a"), desk.file("b.conf", b"")
    manifest = desk.file(
        "releases.toml",
        b'[[release]]\npath = "a.conf"\nproduct = "app"\nversion = "1"\nto = "/a"\n'
        b'[[release]]\npath = "b.conf"\nproduct = "app"\nversion = "2"\nto = "/a"\n',
    )
    assert "is empty" in desk.refused(2, "add", "stable", "--manifest", manifest)
    second.write_bytes(b"b")
    added = desk.data("add", "stable", "--manifest", manifest)["added"]
    assert [(a["outcome"], a["sequence"]) for a in added] == [("unchanged", 1), ("added", 2)]
    assert first.exists()
    assert "stable/app/1/a.conf: unchanged, sequence 1" in desk.done("add", "stable", "--manifest", manifest)


# Taking back -------------------------------------------------------------------------------------


def releases(desk: Desk, *versions: str) -> list[str]:
    targets = []
    for version in versions:
        path = desk.file("app.conf", version.encode())
        options = ("--product", "app", "--version", version, "--to", "/etc/app.conf")
        targets += [a["target"] for a in desk.data("add", "stable", path, *options)["added"]]
    return targets


@pytest.mark.slow
def test_a_rollback_is_permitted_in_words_and_in_metadata(desk: Desk) -> None:
    old, _ = releases(desk, "1", "2")
    desk.sign()
    desk.publish()
    assert desk.data("rollback", "app@1") == {
        "target": old,
        "rollback_from": 2,
        "dropped": [],
        "waiting": ANY,
    }
    assert f"devices MAY GO BACK to {old}" in desk.done("diff")
    desk.sign()
    desk.publish()
    assert {r["target"]: r.get("rollback_from") for r in desk.data("list")["releases"]}[old] == 2


@pytest.mark.slow
def test_a_release_a_grant_and_a_key_are_revoked(desk: Desk) -> None:
    old, new = releases(desk, "1", "2")
    desk.done("grant", NODE, "--scope", "/", "--duty", "seed", "--duty", "gateway", "--address", "h:1")
    desk.sign()
    assert desk.publish()["grants"] == [NODE]
    assert "did you mean app@1" in desk.refused(2, "revoke", "target", "app@1.1")
    desk.done("revoke", "target", "app@1")
    desk.done("revoke", "grant", NODE)
    desk.done("key", "new", "dev2", "--passphrase-file", desk.passphrase)
    revoked = desk.data("revoke", "key", "dev", "--replace", "dev2")
    assert revoked["roles"] == ["channel-stable"]
    text = desk.done("diff")
    assert f"the release {old} is withdrawn" in text
    assert f"the seed grant points/{NODE}.grant is withdrawn" in text
    assert "dev " in text and "loses the right to sign" in text
    desk.sign("lead", "ops", "dev2")
    published = desk.publish()
    assert published["releases"] == [new]
    assert published["grants"] == []
    assert len(list((desk.home / "publication" / "artifacts").iterdir())) == 1


@pytest.mark.slow
def test_a_root_key_is_rotated_with_old_and_new_signatures(published: Desk) -> None:
    desk = published
    desk.done("key", "new", "dave", "--passphrase-file", desk.passphrase)
    desk.done("rotate", "root", "--add", "dave", "--remove", "alice", "--remove", "bob")
    desk.sign("carol", "dave")
    waiting = desk.data("export", desk.home / "request.json")["waiting"]
    assert list(waiting) == ["root"]
    assert "1 of alice" in waiting["root"]
    desk.sign("alice")
    assert desk.publish()["versions"]["root"] == 2
    assert desk.data("verify", desk.home / "publication")["versions"]["root"] == 2


@pytest.mark.slow
def test_the_online_key_is_rotated(published: Desk) -> None:
    desk = published
    desk.done("key", "new", "online2", "--passphrase-file", desk.passphrase)
    said = desk.done("rotate", "online", "--add", "online2", "--remove", "online")
    assert "waits for" in said and "; and" not in said  # the keys of the root stay: they are named once
    desk.sign()
    desk.publish("--online-key", desk.repository / "keys" / "online2.key")
    (desk.repository / "keys" / "online2.key").rename(desk.home / "gone.key")
    error = desk.refused(2, "publish", desk.home / "publication", "--passphrase-file", desk.passphrase)
    assert "online key is not within reach" in error


# Looking and signing -----------------------------------------------------------------------------


def test_status_says_who_must_still_sign_what(desk: Desk) -> None:
    desk.sign("alice")
    text = desk.done("status")
    assert "1 of bob" in text
    roles = {row["role"]: row for row in desk.data("status")["roles"]}
    assert roles["root"]["thresholds"] == [2]
    assert len(roles["root"]["signed"][0]) == 1
    assert not roles["root"]["complete"]
    assert 364 < roles["root"]["days_left"] <= 365


def test_status_says_until_when_everything_is_valid_and_what_is_next(published: Desk) -> None:
    desk = published
    assert "next: nothing; the first to expire is the list of channels (targets)" in desk.done("status")
    desk.done("grant", NODE, "--scope", "/emea", "--address", "h:1", "--days", 20)
    assert "next: p2pdist-sign diff, then p2pdist-sign sign" in desk.done("status")
    desk.sign()
    assert "next: p2pdist-sign publish DIR" in desk.done("status")
    desk.publish()
    text = desk.done("status")
    assert "timestamp" in text and "snapshot" in text and "the admin server, by itself" in text
    assert NODE in text
    assert f"next: p2pdist-sign grant {NODE} --scope /emea" in text
    data = desk.data("status")
    assert [round(grant["days_left"]) for grant in data["grants"]] == [20]
    assert round(data["online"]["snapshot"]["days_left"]) == 7
    assert round(data["online"]["timestamp"]["days_left"]) == 1


def test_nobody_has_signed_a_rotated_root_yet(published: Desk) -> None:
    desk = published
    desk.done("key", "new", "dave", "--passphrase-file", desk.passphrase)
    desk.done("rotate", "root", "--add", "dave", "--remove", "alice")
    row = next(line for line in desk.done("status").splitlines() if "root" in line)
    assert row.split("│")[5].strip() == "-"


def test_the_list_shows_the_way_back(desk: Desk) -> None:
    releases(desk, "1", "2")
    desk.done("rollback", "app@1")
    rows = [line for line in desk.done("list").splitlines() if "/app/" in line]
    assert ["from up to 2" in row for row in rows] == [True, False]


def test_only_keys_with_a_say_are_used(published: Desk) -> None:
    desk = published
    releases(desk, "1")
    signed = desk.sign()["signed"]
    assert [entry["role"] for entry in signed] == ["channel-stable"]
    releases(desk, "2")
    assert "no key within reach has a say" in desk.refused(
        2, "sign", "--key", "alice", "--yes", "--passphrase-file", desk.passphrase
    )


def test_what_is_signed_is_not_signed_again(desk: Desk) -> None:
    desk.sign()
    assert "everything here is signed" in desk.refused(2, "sign", "--yes")
    desk.publish()
    assert "no draft" in desk.refused(2, "sign", "--yes")


def test_nobody_agrees_where_nobody_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        assert "use --yes" in desk.refused(2, "sign", "--passphrase-file", desk.passphrase)


def test_what_changes_while_somebody_looks_at_it_is_not_signed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for the passphrase prompt to slip a release in finds it unsigned."""
    from p2pdist.sign import signing

    original = signing.open_key

    def slow(*arguments: Any) -> Any:
        monkeypatch.setattr(signing, "open_key", original)
        releases(desk, "1")
        return original(*arguments)

    monkeypatch.setattr(signing, "open_key", slow)
    error = desk.refused(2, "sign", "--key", "dev", "--yes", "--passphrase-file", desk.passphrase)
    assert "the channel 'stable' was changed meanwhile; nothing was signed" in error
    assert all(not names for row in desk.data("status")["roles"] for names in row["signed"])


def test_signatures_on_a_changed_draft_do_not_come_in(desk: Desk) -> None:
    request = desk.home / "request.json"
    desk.done("export", request)
    desk.done(
        *("sign", "--request", request, "--key", desk.repository / "keys" / "dev.key"),
        *("--yes", "--passphrase-file", desk.passphrase),
    )
    releases(desk, "1")
    assert "changed after it was exported" in desk.refused(4, "import", request)


def test_roles_that_did_not_change_come_in_and_the_others_are_named(desk: Desk) -> None:
    request = desk.home / "request.json"
    desk.done("export", request)
    keys = [part for name in ("alice", "dev") for part in ("--key", desk.repository / "keys" / f"{name}.key")]
    desk.done("sign", "--request", request, *keys, "--yes", "--passphrase-file", desk.passphrase)
    releases(desk, "1")
    text = desk.done("import", request)
    assert "signed the trust root" in text and "alice" in text
    assert "NOT TAKEN, of the channel 'stable': what was signed" in text
    rows = {row["role"]: row for row in desk.data("status")["roles"]}
    assert len(rows["root"]["signed"][0]) == 1
    assert rows["channel-stable"]["signed"] == [[]]


def test_a_request_that_came_back_signed_is_not_overwritten(desk: Desk) -> None:
    request = desk.home / "request.json"
    desk.done("export", request)
    desk.done("export", request)  # nobody has signed it yet
    dev = ("--key", desk.repository / "keys" / "dev.key")
    desk.done("sign", "--request", request, *dev, "--yes", "--passphrase-file", desk.passphrase)
    assert "carries signatures on the channel 'stable'" in desk.refused(2, "export", request)
    desk.done("import", request)
    desk.done("export", request)
    assert "is no signing request" in desk.refused(2, "export", desk.passphrase)


def test_a_key_that_cannot_be_spared_is_to_be_replaced(desk: Desk) -> None:
    error = desk.refused(2, "revoke", "key", "dev")
    assert "of the keys of the channel 'stable' 0 would be left, and 1 must sign" in error
    assert "--replace NAME" in error and "--threshold" not in error
    desk.done("revoke", "key", "bob")
    error = desk.refused(2, "revoke", "key", "carol")
    assert "--replace NAME" in error and "--threshold 1" in error


def test_a_change_says_whose_signatures_it_makes_void(desk: Desk) -> None:
    desk.sign("dev", "ops")
    motd = desk.file("motd")
    added = ("add", "stable", motd, "--product", "motd", "--version", "1", "--to", "/etc/motd")
    text = desk.done(*added)
    assert "dropped: the signature of dev (" in text
    assert "on the channel 'stable'" in text
    desk.sign("dev")
    assert "dropped" not in desk.done(*added)  # nothing changed
    dropped = desk.data("channel", "remove", "stable")["dropped"]
    assert [(d["role"], d["key"].split()[0]) for d in dropped] == [("channel-stable", "dev")]


def test_what_was_published_is_not_called_dropped(published: Desk) -> None:
    assert published.data("renew", "root")["dropped"] == []


@pytest.mark.slow
def test_a_request_of_strangers_is_recognised_by_the_trust_root(
    published: Desk, make_desk: Callable[[str], Desk]
) -> None:
    desk = published
    releases(desk, "1")
    request = desk.home / "request.json"
    desk.done("export", request)
    other = make_desk("other")
    other.done(
        "init", "--fleet", "acme", "--root", "eve", "--threshold", 1, "--passphrase-file", other.passphrase
    )
    other.sign()
    other.publish()
    root = other.home / "publication" / "metadata" / "1.root.json"
    arguments = ("sign", "--request", request, "--key", desk.repository / "keys" / "dev.key", "--yes")
    sealed = ("--passphrase-file", desk.passphrase)
    assert "does not follow" in desk.refused(4, *arguments, "--trusted-root", root, *sealed)
    known = desk.home / "publication" / "metadata" / "1.root.json"
    desk.done(*arguments, "--trusted-root", known, *sealed)


def test_what_expires_soon_is_renewed(published: Desk) -> None:
    desk = published
    assert desk.data("renew")["opened"] == []
    assert desk.data("renew", "--within-days", 100)["opened"] == ["targets", "points", "channel-stable"]
    assert desk.data("renew", "root")["opened"] == ["root"]
    desk.sign()
    assert desk.publish()["versions"]["root"] == 2


def test_a_draft_is_discarded(published: Desk) -> None:
    desk = published
    releases(desk, "1")
    desk.done("discard", "stable")
    assert desk.data("list")["releases"] == []
    assert "no draft" in desk.refused(2, "discard", "stable")


def test_what_is_unfinished_can_wait(published: Desk) -> None:
    desk = published
    releases(desk, "1")
    desk.done("grant", NODE, "--scope", "/", "--address", "h:1")
    desk.sign("ops")
    published = desk.publish("--leave-unfinished")
    assert published["unfinished"] == ["channel-stable"]
    assert published["grants"] == [NODE]


# Publication -------------------------------------------------------------------------------------


def test_an_artifact_altered_on_disk_is_found_by_verify(desk: Desk) -> None:
    releases(desk, "1")
    desk.sign()
    desk.publish()
    artifact = next((desk.home / "publication" / "artifacts").iterdir())
    artifact.chmod(0o644)
    artifact.write_bytes(b"2")
    assert "is not what was signed" in desk.refused(4, "verify", desk.home / "publication")


def test_a_torrent_of_another_swarm_is_found_by_verify(desk: Desk) -> None:
    releases(desk, "1")
    desk.sign()
    desk.publish()
    assert "swarm" in desk.refused(4, "verify", desk.home / "publication", "--fleet", "other")


def test_verify_without_a_publication_says_how_to_make_one(desk: Desk) -> None:
    assert "holds no publication" in desk.refused(2, "verify", desk.home)


def test_a_removed_channel_disappears_from_the_publication(desk: Desk) -> None:
    releases(desk, "1")
    desk.sign()
    desk.publish()
    desk.done("channel", "remove", "stable")
    desk.sign("lead")
    assert desk.publish()["channels"] == []


# The program -------------------------------------------------------------------------------------

COMMANDS = [
    ["init"],
    ["key", "new"],
    ["key", "public"],
    ["key", "list"],
    ["key", "passphrase"],
    ["channel", "add"],
    ["channel", "remove"],
    ["rotate"],
    ["add"],
    ["list"],
    ["grant"],
    ["revoke", "target"],
    ["revoke", "grant"],
    ["revoke", "key"],
    ["rollback"],
    ["status"],
    ["diff"],
    ["sign"],
    ["export"],
    ["import"],
    ["renew"],
    ["discard"],
    ["publish"],
    ["verify"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_every_option(
    command: list[str], make_desk: Callable[[str], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = make_desk("x").run(*command, "--help")
    assert code == 0
    lines = [line.strip("│ ") for line in out.splitlines() if line.startswith("│")]
    bare = [line for line in lines if line.startswith(("--", "*  --")) and "  " not in line.strip("* ")]
    assert bare == []
    assert "Usage:" in out


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["add"], ["status", "--output", "xml"], ["init", "--fleet"]], ids=" ".join
)
def test_a_wrong_call_ends_with_exit_code_two(desk: Desk, arguments: list[str]) -> None:
    code, _, _ = desk.run(*arguments)
    assert code == 2


def test_the_repository_can_be_named_before_the_command(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["-C", str(desk.repository), "--output", "json", "status"]) == 0
    assert json.loads(capsys.readouterr().out)["fleet"] == "acme"


def test_a_defect_is_told_in_one_line_with_its_place(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("p2pdist.trust.repository.parse_fleet", broken)
    error = desk.refused(1, "status")
    assert error.startswith("p2pdist-sign: a defect at p2pdist/trust/repository.py:")
    assert "KeyError: 'surprise'" in error
    assert error.count("\n") == 1


def test_a_full_disk_asks_to_repeat_the_command(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("p2pdist.trust.generations.sync_tree", full)
    error = desk.refused(5, "channel", "remove", "stable")
    assert "No space left on device" in error
    assert "free some space, then repeat the command" in error


def test_a_repository_in_use_asks_to_wait(desk: Desk) -> None:
    from p2pdist.trust.repository import Repository

    with Repository.open(desk.repository).hold():
        assert "in use" in desk.refused(5, "channel", "remove", "stable")


def test_the_program_runs_as_a_process_of_its_own(desk: Desk) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "p2pdist.sign", "status", "--output", "json"],
        env={**os.environ, "P2PDIST_SIGN_REPOSITORY": str(desk.repository)},
        capture_output=True,
        check=True,
    )
    assert json.loads(ran.stdout)["fleet"] == "acme"


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("200GB", 200 * 10**9), ("512 MiB", 512 << 20), ("7k", 7_000)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "many", "1.5GB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


def test_a_grant_for_a_point_that_is_dialled_says_so_wherever_it_is_shown(desk: Desk) -> None:
    said = desk.done("grant", NODE, "--scope", "/plant", "--address", "203.0.113.9:7601", "--dialled")
    assert "it dials nobody: those above dial it at 203.0.113.9:7601" in said
    assert "who dials: it dials nobody: those above dial it" in desk.done("diff")
    assert [grant["dialled"] for grant in desk.data("status")["grants"]] == [True]
    assert [grant["dialled"] for grant in desk.data("list")["grants"]] == [True]


def test_a_point_that_is_dialled_needs_an_address(desk: Desk) -> None:
    assert "no address is named" in desk.refused(2, "grant", NODE, "--scope", "/plant", "--dialled")
