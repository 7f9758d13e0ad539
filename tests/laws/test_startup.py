"""What a command does not need, it does not wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # a process for each

SERVES = {"anycorn", "starlette", "libtorrent", "h2"}
PUBLISHES = {"tuf", "securesystemslib", "trio", "sqlalchemy", "httpx", "ssl"}
WITHOUT: list[tuple[str, str, set[str]]] = [
    ("server", "--version", SERVES | PUBLISHES | {"p2pdist.server.founding"}),
    ("server", "init --help", SERVES | {"httpx"}),
    ("server", "token --help", {"anycorn", "starlette"}),
    ("sign", "--version", {"libtorrent", "zstandard"} | PUBLISHES),
    ("sign", "sign --help", {"libtorrent", "zstandard", "trio", "ssl"}),
    ("sign", "publish --help", {"zstandard", "trio", "ssl"}),
    ("cli", "--version", PUBLISHES),
    ("cli", "group add --help", {"tuf", "libtorrent"}),
    ("agent", "enrol --help", {"p2pdist.agent.agent", "p2pdist.swarm.session"}),
    ("seed", "enrol --help", {"p2pdist.seed.seed", "p2pdist.swarm.session"}),
]


@pytest.mark.parametrize(
    ("room", "words", "needless"), WITHOUT, ids=[f"{room} {words}" for room, words, _ in WITHOUT]
)
def test_a_command_does_not_load_what_only_others_need(room: str, words: str, needless: set[str]) -> None:
    code = f"import sys; from p2pdist.{room}.main import main\ntry: main()\nfinally: print('#', *sys.modules)"
    call = [sys.executable, "-c", code, *words.split()]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert needless & set(done.stdout.rpartition("#")[2].split()) == set()
