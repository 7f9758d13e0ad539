"""As whom a node asks a directory: the poll's user, its own, or nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pdist.config import load_config
from p2pdist.duties.discovery.logins import Login, login_for
from p2pdist.errors import UsageError
from p2pdist.node.config import SeedConfig
from p2pdist.node.directorysettings import DirectorySettings
from p2pdist.wire.polling import PolledDirectory, PollSecrets

POLLED = PolledDirectory(host="dc.acme.example", port=636, base="dc=acme")


class Port:
    """A run for which an operator has sealed a password, or has not."""

    def __init__(self) -> None:
        self.asked = 0

    async def secrets(self, kind: type[PollSecrets]) -> PollSecrets:
        self.asked += 1
        return kind(password="sealed")


def settings(tmp_path: Path, **fields: Any) -> DirectorySettings:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("open sesame\n")
    known = {"url": "ldaps://dc.acme.example", "user": "reader", "password_file": password, **fields}
    return DirectorySettings(**known)


async def login(own: DirectorySettings, **fields: Any) -> Login:
    polled = msgspec.structs.replace(POLLED, **fields)
    return await login_for(polled, Port(), [own])  # type: ignore[arg-type]  # as much of it as is needed


async def test_a_poll_without_a_user_is_asked_as_the_nodes_own(tmp_path: Path) -> None:
    own = settings(tmp_path, ca_file=tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_bytes(b"PEM")
    assert await login(own) == Login(user="reader", password="open sesame", authority=b"PEM")
    assert await login(own, host="DC.acme.example") == await login(own)


async def test_the_password_is_read_when_the_poll_begins(tmp_path: Path) -> None:
    own = settings(tmp_path)
    own.password_file.write_text("changed")
    assert (await login(own)).password == "changed"
    own.password_file.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        await login(own)


@pytest.mark.parametrize("other", [{"host": "dc2.acme.example"}, {"port": 1636}, {"tls": "starttls"}])
async def test_the_nodes_password_is_for_no_other_directory(tmp_path: Path, other: dict[str, Any]) -> None:
    assert await login(settings(tmp_path), **other) == Login()


async def test_a_poll_does_not_say_who_vouches_for_the_directory_that_gets_the_nodes_password(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="nobody else's word"):
        await login(settings(tmp_path), authority=b"PEM")


async def test_a_user_of_the_poll_comes_before_the_nodes_own(tmp_path: Path) -> None:
    found = await login(settings(tmp_path), user="other", authority=b"PEM")
    assert found == Login(user="other", password="sealed", authority=b"PEM")


async def test_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    own = settings(tmp_path)
    own.password_file.chmod(0o640)
    with pytest.raises(UsageError, match="others than its owner"):
        await login(own)


async def test_an_empty_password_is_refused_as_it_would_ask_as_nobody(tmp_path: Path) -> None:
    own = settings(tmp_path)
    own.password_file.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        await login(own)


@pytest.mark.parametrize("url", ["https://dc", "ldaps://", "ldaps://dc/ou=x", "ldaps://user@dc", "dc"])
def test_an_address_that_is_no_directorys_is_refused_with_the_configuration(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="not a directory's address"):
        load_config(written(tmp_path, url), SeedConfig, {})


def test_the_configuration_names_several_directories(tmp_path: Path) -> None:
    found = load_config(written(tmp_path, "ldaps://dc1", "ldap://dc2:1389"), SeedConfig, {}).directories
    assert [(each.url, each.user) for each in found] == [("ldaps://dc1", "r"), ("ldap://dc2:1389", "r")]


def written(tmp_path: Path, *urls: str) -> Path:
    """A configuration that names directories."""
    path = tmp_path / "seed.toml"
    own = '[[directories]]\nurl = "{}"\nuser = "r"\npassword_file = "/etc/p2pdist/directory"\n'
    path.write_text("".join(own.format(url) for url in urls))
    return path


def test_no_password_is_in_what_is_logged_of_a_login() -> None:
    assert "sesame" not in repr(Login(user="reader", password="open sesame"))
