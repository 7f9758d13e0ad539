"""Polls of a directory service at the operator's prompt; the admin server asks it itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from slapd import COMPUTERS, PASSWORD, SLAPADD, SLAPD, Slapd, certificates, open_slapd

from p2pdist.node.directorysettings import DirectorySettings
from p2pdist.wire import api as wire
from p2pdist.wire.polling import Poll

from .conftest import OpenShell, Shell

pytestmark = [
    pytest.mark.slow,  # a whole server
    pytest.mark.skipif(None in (SLAPD, SLAPADD), reason="needs slapd"),
]

USER = "cn=admin,dc=acme"


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with open_slapd(tmp_path_factory.mktemp("slapd")) as opened:
        yield opened


def secret(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text + "\n")
    return str(path)


def words(slapd: Slapd, tmp_path: Path, *, password: str = PASSWORD, scheme: str = "ldaps") -> list[str]:
    port = slapd.tls_port if scheme == "ldaps" else slapd.port
    said = ["discover", "--via", "server", "--ldap", f"{scheme}://127.0.0.1:{port}", "--ldap-base", "dc=acme"]
    said += ["--ldap-user", USER, "--password-file", secret(tmp_path / "password", password)]
    return [*said, "--ldap-ca", slapd.ca_file, "--wait"]


async def found(shell: Shell) -> dict[str, wire.FoundInfo]:
    devices = (await shell.json(wire.FoundList, "inventory", "list")).devices
    return {device.name: device for device in devices}


async def test_the_computers_of_a_directory_come_into_the_inventory_with_their_units(
    open_shell: OpenShell, tmp_path: Path, slapd: Slapd
) -> None:
    async with open_shell() as shell:
        run = await shell.json(wire.TaskRun, *words(slapd, tmp_path, scheme="ldap"))
        assert (run.nodes[0].state, run.nodes[0].figures["directory"]) == ("done", COMPUTERS)
        devices = await found(shell)
        assert len(devices) == COMPUTERS
        assert (devices["pc3"].unit, devices["pc4"].unit) == ("ou=Berlin,dc=acme", "ou=Paris,dc=acme")
        assert devices["pc3"].known_by == "guid"
        (known,) = (await shell.json(wire.TaskList, "task", "list")).tasks
        assert isinstance(known.work, Poll) and known.work.directory is not None
        assert known.work.directory.user == USER
        for path in (tmp_path / "server").rglob("*"):
            if path.is_file():
                assert PASSWORD.encode() not in path.read_bytes(), path


async def test_the_password_is_given_again_for_the_next_run(
    open_shell: OpenShell, tmp_path: Path, slapd: Slapd
) -> None:
    async with open_shell() as shell:
        some = [*words(slapd, tmp_path), "--ldap-filter", "(cn=pc7)"]
        run = await shell.json(wire.TaskRun, *some)
        assert [item.subject for item in run.items] == ["pc7"]
        await shell("task", "run", run.task, "--wait", code=2)
        assert "needs secrets" in shell.stderr
        again = secret(tmp_path / "again.toml", f'password = "{PASSWORD}"')
        assert "done" in await shell("task", "run", run.task, "--secrets", again, "--wait")


def unnamed(slapd: Slapd) -> list[str]:
    """The words of a poll that names no user."""
    url = f"ldaps://127.0.0.1:{slapd.tls_port}"
    return ["discover", "--via", "server", "--ldap", url, "--ldap-base", "dc=acme"]


async def test_on_a_schedule_the_node_asks_as_a_user_of_its_own(
    open_shell: OpenShell, tmp_path: Path, slapd: Slapd
) -> None:
    own = DirectorySettings(
        url=f"ldaps://127.0.0.1:{slapd.tls_port}",
        user=USER,
        password_file=Path(secret(tmp_path / "password", PASSWORD)),
        ca_file=Path(slapd.ca_file),
    )
    async with open_shell(directories=(own,)) as shell:
        words = [*unnamed(slapd), "--ldap-filter", "(cn=pc7)", "--every", "0 2 * * *"]
        made = await shell.json(wire.TaskInfo, *words)
        run = await shell.json(wire.TaskRun, "task", "run", made.id, "--wait")
        assert [item.subject for item in run.items] == ["pc7"]
        for path in (tmp_path / "server").rglob("*"):
            if path.is_file():
                assert PASSWORD.encode() not in path.read_bytes(), path
        own.password_file.chmod(0o640)
        await shell("task", "run", made.id, "--wait", code=6)
        assert "chmod 600" in shell.stderr


async def test_a_node_that_has_no_user_for_a_directory_says_where_it_could_have_one(
    open_shell: OpenShell, slapd: Slapd
) -> None:
    async with open_shell() as shell:
        await shell(*unnamed(slapd), "--ldap-ca", slapd.ca_file, "--wait", code=6)
        assert "[[directories]]" in shell.stderr


async def test_a_wrong_password_and_a_directory_of_another_authority_are_said(
    open_shell: OpenShell, tmp_path: Path, slapd: Slapd
) -> None:
    async with open_shell() as shell:
        await shell(*words(slapd, tmp_path, password="guessed wrong"), code=6)
        assert "does not let us in" in shell.stderr
        assert "guessed" not in shell.stderr
        certificates(tmp_path)
        other = words(slapd, tmp_path)
        other[other.index(slapd.ca_file)] = str(tmp_path / "ca.pem")
        await shell(*other, code=6)
        assert "is not trusted" in shell.stderr
        assert await found(shell) == {}


async def test_a_directory_that_cannot_be_asked_is_said_at_once(
    open_shell: OpenShell, tmp_path: Path
) -> None:
    base, user = ("--ldap-base", "dc=acme"), ("--ldap-user", "x")
    password = ("--password-file", secret(tmp_path / "password", "x"))
    async with open_shell() as shell:
        for arguments, said in (
            (("--ldap", "ldaps://h"), "where in the directory to look"),
            (("--ldap", "http://h", *base), "not a directory's address"),
            (("--ldap", "ldaps://h", *base, *user), "go together"),
            (("--ldap", "ldaps://h", *base, *password), "go together"),
            ((*base,), "is not named"),
            (("--method", "directory"), "needs one"),
            (("--ldap", "ldaps://h", *base, *user, *password, "--every", "0 2 * * *"), "kept in memory"),
        ):
            await shell("discover", "--via", "server", *arguments, "--output", "json", code=2)
            assert said in json.loads(shell.stderr)["error"]
