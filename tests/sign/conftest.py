"""A signing repository made by the program itself, copied for each test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from nacl.pwhash import argon2id

from p2pdist.sign.main import run

PASSPHRASE = "correct horse"


class Desk:
    """One signing machine: a repository, and the program.

    Attributes:
        repository: The repository's directory.
        passphrase: A file with everybody's passphrase.
        home: Scratch.
    """

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.repository = home / "repository"
        self.passphrase = home / "passphrase"
        self._capsys = capsys

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """Run a command; return its exit code, standard output and standard error."""
        self._capsys.readouterr()
        try:
            code = run([*map(str, arguments), "--repository", str(self.repository)])
        except SystemExit as ended:
            code = int(str(ended.code))
        out, err = self._capsys.readouterr()
        return code, out, err

    def done(self, *arguments: object) -> str:
        """Run a command that must succeed; return what it says."""
        code, out, err = self.run(*arguments)
        assert code == 0, err
        return out

    def data(self, *arguments: object) -> Any:
        """Run a command that must succeed; return its JSON."""
        return json.loads(self.done(*arguments, "--output", "json"))

    def refused(self, code: int, *arguments: object) -> str:
        """Run a command that must fail with *code*; return what it says."""
        got, out, err = self.run(*arguments)
        assert got == code, out + err
        return err

    def sign(self, *keys: str) -> Any:
        """Sign everything with these keys (all within reach by default)."""
        named = [part for key in keys for part in ("--key", key)]
        return self.data("sign", *named, "--yes", "--passphrase-file", self.passphrase)

    def publish(self, *arguments: object) -> Any:
        return self.data(
            "publish", self.home / "publication", "--passphrase-file", self.passphrase, *arguments
        )

    def file(self, name: str, content: bytes = b"some content") -> Path:
        path = self.home / name
        path.write_bytes(content)
        return path


def write_passphrase(path: Path, text: str = PASSPHRASE) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


_derived_once = cache(argon2id.kdf)  # many tests open copies of the same key files, and it takes 0.1 s


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PDIST_SIGN_KDF", "interactive")
    monkeypatch.setattr(argon2id, "kdf", _derived_once)


@pytest.fixture(scope="session")
def ceremony(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet: alice, bob, carol (root 2 of 3), lead, ops, and the channel stable (dev)."""
    home = tmp_path_factory.mktemp("ceremony")
    passphrase = str(write_passphrase(home / "passphrase"))
    common = ["--repository", str(home / "repository")]
    sealed = ["--passphrase-file", passphrase, "--kdf", "interactive", *common]
    people = [part for name in ("alice", "bob", "carol") for part in ("--root", name)]
    roles = ["--targets", "lead", "--points", "ops"]
    assert run(["init", "--fleet", "acme", *people, "--threshold", "2", *roles, *sealed]) == 0
    assert run(["key", "new", "dev", *sealed]) == 0
    assert run(["channel", "add", "stable", "--key", "dev", *common]) == 0
    return home


@pytest.fixture
def desk(tmp_path: Path, ceremony: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    home = tmp_path / "desk"
    shutil.copytree(ceremony, home, symlinks=True)
    return Desk(home, capsys)


@pytest.fixture(scope="session")
def first_publication(ceremony: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, signed by everybody and published, without a release."""
    home = tmp_path_factory.mktemp("published") / "desk"
    shutil.copytree(ceremony, home, symlinks=True)
    common = ["--repository", str(home / "repository"), "--passphrase-file", str(home / "passphrase")]
    assert run(["sign", "--yes", *common]) == 0
    assert run(["publish", str(home / "publication"), *common]) == 0
    return home


@pytest.fixture
def published(tmp_path: Path, first_publication: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    home = tmp_path / "published"
    shutil.copytree(first_publication, home, symlinks=True)
    return Desk(home, capsys)


@pytest.fixture
def make_desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Desk]:
    """Make a machine without a repository."""

    def make(name: str) -> Desk:
        home = tmp_path / name
        home.mkdir()
        write_passphrase(home / "passphrase")
        return Desk(home, capsys)

    return make
