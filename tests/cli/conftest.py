"""A logged-in operator in front of a real admin server."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

sys.path.insert(0, str(Path(__file__).parent.parent / "duties" / "discovery"))
sys.path.insert(0, str(Path(__file__).parent.parent / "duties" / "follow"))
sys.path.insert(0, str(Path(__file__).parent.parent / "duties"))
sys.path.insert(0, str(Path(__file__).parent.parent / "server"))

from serverkit import Fleet, Publisher, open_fleet

from p2pdist.cli.main import run


class Shell:
    """Runs commands as an operator would, and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str], fleet: Fleet) -> None:
        self._capsys = capsys
        self.fleet = fleet
        self.stderr = ""

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command; check its exit code; return its standard output."""
        self._capsys.readouterr()
        found = await trio.to_thread.run_sync(run, list(arguments))
        out, self.stderr = self._capsys.readouterr()
        assert found == code, (out, self.stderr)
        return out

    async def json(self, kind: Any, *arguments: str) -> Any:
        return msgspec.json.decode(await self(*arguments, "--output", "json"), type=kind)


OpenShell = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without a profile, and no settings in the environment."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "P2PDIST_PROFILE", "P2PDIST_SERVER", "P2PDIST_TOKEN_FILE", "P2PDIST_CA"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def open_shell(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> OpenShell:
    """Open a server, log in to it, and yield a shell."""

    @asynccontextmanager
    async def opened(publisher: Publisher | None = None, **settings: Any) -> AsyncIterator[Shell]:
        async with open_fleet(tmp_path, publisher, **settings) as fleet:
            (home / "ca.pem").write_bytes(fleet.ca_pem)
            (home / "key").touch(mode=0o600)
            (home / "key").write_text(fleet.token)
            shell = Shell(capsys, fleet)
            url = f"https://{fleet.api[0]}:{fleet.api[1]}"
            await shell("login", url, "--token-file", str(home / "key"), "--ca", str(home / "ca.pem"))
            yield shell

    return opened


Command = Callable[..., Awaitable[str]]
