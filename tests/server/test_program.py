"""``p2pdist-server`` as a real process: founding, running, being killed at the worst moment."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from serverkit import ACME, Operator, Publisher, signer

from p2pdist.config import load_config
from p2pdist.errors import P2PDistError, Unavailable, UsageError
from p2pdist.server import initialise as initialise_module
from p2pdist.server.config import ServerConfig
from p2pdist.server.initialise import initialise, open_online_key
from p2pdist.server.main import app
from p2pdist.server.serverhome import ServerHome
from p2pdist.trust.keys import SealedKeyFile
from p2pdist.wire import api as wire

pytestmark = pytest.mark.slow  # real processes, many kills or a whole server: not in the fast subset

DATA = bytes(range(256)) * 20_000
PASSPHRASE = b"correct horse"
READY_S = 60.0


@pytest.fixture(scope="module")
def sealed_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The online key of the test fleet's publisher, sealed as cheaply as possible."""
    folder = tmp_path_factory.mktemp("keys")
    seed = bytes(signer("online")._key) if hasattr(signer("online"), "_key") else b""
    assert seed, "the signer keeps its seed"
    SealedKeyFile._seal("online", seed, PASSPHRASE, "interactive").save(folder / "online.key")
    SealedKeyFile.create("alice", PASSPHRASE, kdf="interactive").save(folder / "alice.key")
    (folder / "passphrase").touch(mode=0o600)
    (folder / "passphrase").write_bytes(PASSPHRASE + b"\n")
    return folder


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "signed")


@pytest.fixture
def config(tmp_path: Path, sealed_key: Path, publisher: Publisher) -> Path:
    """A founded server on free ports of the loopback interface."""
    root = tmp_path / "root.json"
    root.write_bytes(publisher.root)
    path = initialise(
        tmp_path / "server",
        fleet=ACME,
        root=root,
        online_key=sealed_key / "online.key",
        passphrase_file=sealed_key / "passphrase",
        addresses=["127.0.0.1:7601"],
        api_address="127.0.0.1:7600",
        origin_port=7602,
        api_hosts=["admin.example"],
        store_url="",
    )
    text = path.read_text()
    for port in ("7600", "7601", "7602"):
        text = text.replace(f"port = {port}", "port = 0")
    path.write_text(text)
    return path


class Server:
    """A running process."""

    def __init__(self, process: trio.Process, config: Path) -> None:
        self.process = process
        self.data = config.parent
        self.listening = json.loads((self.data / "listening.json").read_bytes())

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.data / "ca.pem"))

    def client(self) -> httpx.AsyncClient:
        token = (self.data / "operator.token").read_text().strip()
        return httpx.AsyncClient(
            base_url=f"https://{self.listening['api']}",
            verify=self.tls(),
            headers={"authorization": f"Bearer {token}"},
            timeout=30,
        )

    async def kill(self) -> None:
        """Like a power cut for this process."""
        os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def running(config: Path) -> AsyncIterator[Server]:
    """Run ``p2pdist-server run`` until it says READY to its supervisor."""
    path = config.parent / "notify"
    path.unlink(missing_ok=True)
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    await listener.bind(str(path))
    environment = {**os.environ, "NOTIFY_SOCKET": str(path)}
    command = [sys.executable, "-c", "from p2pdist.server.main import main; main()", "run"]
    async with trio.open_nursery() as nursery:
        with (config.parent.parent / "log").open("ab") as log:
            process = await nursery.start(
                lambda task_status: trio.run_process(
                    [*command, "--config", str(config)],
                    stderr=log,
                    env=environment,
                    check=False,
                    task_status=task_status,
                )
            )
            try:
                with trio.move_on_after(READY_S) as waiting:
                    while not (await listener.recv(4_096)).startswith(b"READY=1"):
                        pass
                log_text = (config.parent.parent / "log").read_text()
                assert not waiting.cancelled_caught, log_text
                yield Server(process, config)
            finally:
                listener.close()
                if process.poll() is None:
                    process.terminate()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 20):
                    await process.wait()
                nursery.cancel_scope.cancel()


# Founding ----------------------------------------------------------------------------------------------


def test_founding_writes_secrets_for_their_owner_only(config: Path) -> None:
    data = config.parent
    for secret in ("operator.token", "identity.key", "authority/ca.key", "online.key", "online.passphrase"):
        assert (data / secret).stat().st_mode & 0o777 == 0o600
    home = ServerHome(data)
    assert home.fleet == ACME and (data / "ca.pem").read_bytes() == home.authority.certificate_pem


def test_the_way_to_mirrors_in_the_file_is_the_one_that_the_server_goes(config: Path) -> None:
    config.write_text(config.read_text() + '\n[mirrors]\nregion = "eu"\n')
    assert load_config(config, ServerConfig, {}).service_settings().mirrors.region == "eu"


def test_a_founded_directory_needs_nothing_outside_of_it(config: Path) -> None:
    loaded = load_config(config, ServerConfig, {})
    assert loaded.online.key.parent == loaded.online.passphrase_file.parent == config.parent
    assert (
        open_online_key(loaded.online.key, loaded.online.passphrase_file).public_key
        == signer("online").public_key
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fleet": "Not a name"}, "not a fleet name"),
        ({"addresses": ["nowhere"]}, "not an address"),
        ({"api_address": "nowhere"}, "not an address"),
        ({"passphrase": b"wrong"}, "passphrase"),
        ({"root": b"{}"}, "not a trust root.*1.root.json"),
        ({"root": "unsigned"}, "not a trust root.*1.root.json"),
        ({"root": "timestamp.json"}, "timestamp metadata.*1.root.json"),
        ({"online_key": "alice.key"}, "alice.*names online.*for the snapshot"),
        ({"store_url": "nonsense"}, "database URL"),
        ({"store_url": "mysql://host/fleet"}, "driver for mysql is not installed"),
        ({"store_url": "sqlite:////nowhere/fleet.db"}, "database cannot be used"),
    ],
)
def test_founding_with_something_wrong_says_what_and_leaves_nothing(
    tmp_path: Path, sealed_key: Path, publisher: Publisher, change: dict[str, Any], why: str
) -> None:
    root, passphrase = tmp_path / "root.json", tmp_path / "passphrase"
    offered = change.pop("root", publisher.root)
    if offered == "unsigned":
        offered = json.dumps({**json.loads(publisher.root), "signatures": []}).encode()
    root.write_bytes(publisher.metadata()[offered] if isinstance(offered, str) else offered)
    passphrase.touch(mode=0o600)
    passphrase.write_bytes(change.pop("passphrase", PASSPHRASE))
    arguments: dict[str, Any] = {
        "fleet": ACME,
        "addresses": ["127.0.0.1:7601"],
        "api_address": "127.0.0.1:7600",
        "origin_port": 7602,
        "api_hosts": [],
        "store_url": "",
        **change,
        "online_key": sealed_key / change.get("online_key", "online.key"),
    }
    with pytest.raises(P2PDistError, match=why):
        initialise(tmp_path / "server", root=root, passphrase_file=passphrase, **arguments)
    assert not (tmp_path / "server").exists()


def test_founding_that_failed_can_be_repeated(
    tmp_path: Path, sealed_key: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root.json"
    root.write_bytes(publisher.root)

    def found() -> Path:
        return initialise(
            tmp_path / "server",
            fleet=ACME,
            root=root,
            online_key=sealed_key / "online.key",
            passphrase_file=sealed_key / "passphrase",
            addresses=["127.0.0.1:7601"],
            api_address="127.0.0.1:7600",
            origin_port=7602,
            api_hosts=[],
            store_url="",
        )

    def full(*_: object, **__: object) -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(initialise_module, "add_api_token", full)
        with pytest.raises(Unavailable):
            found()
    assert [path.name for path in (tmp_path / "server").iterdir()] == [".new"]
    assert found().exists() and not (tmp_path / "server" / ".new").exists()


def test_founding_twice_in_one_place_is_refused(
    config: Path, tmp_path: Path, sealed_key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "init", "--data", str(config.parent), "--fleet", ACME, "--root", str(tmp_path / "root.json"),
        "--online-key", str(sealed_key / "online.key"), "--passphrase-file", str(sealed_key / "passphrase"),
        "--address", "127.0.0.1:7601",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="not empty"):
        app(arguments)


def test_a_token_can_be_made_while_the_server_is_off(config: Path, tmp_path: Path) -> None:
    app(["token", "--config", str(config), "--output", str(tmp_path / "new"), "--role", "reader"])
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    token = (tmp_path / "new").read_text()
    assert token.startswith("p2p_")
    with pytest.raises(UsageError, match="exists already"):
        app(["token", "--config", str(config), "--output", str(tmp_path / "new")])
    assert (tmp_path / "new").read_text() == token


# Running -----------------------------------------------------------------------------------------------


async def test_the_server_says_when_it_is_ready_and_ends_on_sigterm(config: Path) -> None:
    async with running(config) as server:
        async with server.client() as client:
            status = await Operator(client).ask("GET", "/status", wire.Status)
        assert status.fleet == ACME
        assert server.listening["pid"] == server.process.pid
        server.process.terminate()
        with trio.fail_after(15):
            assert await server.process.wait() == 0


async def test_a_server_whose_passphrase_file_was_changed_says_so_and_ends(config: Path) -> None:
    (config.parent / "online.passphrase").write_bytes(b"another\n")
    ended = await trio.run_process(
        [sys.executable, "-c", "from p2pdist.server.main import main; main()", "run", "--config",
         str(config)],
        check=False, capture_stderr=True,
    )  # fmt: skip
    assert ended.returncode == 2
    assert b"online.passphrase: the passphrase does not open the key of online" in ended.stderr


@pytest.mark.slow
async def test_a_second_server_on_the_same_directory_is_refused(config: Path) -> None:
    async with running(config):
        second = await trio.run_process(
            [sys.executable, "-c", "from p2pdist.server.main import main; main()", "run", "--config",
             str(config)],
            check=False, capture_stderr=True,
        )  # fmt: skip
        assert second.returncode == 5 and b"in use by another process" in second.stderr


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("[link]", "[lnik]", "did you mean link"),
        ("level =", "levle =", "did you mean level"),
        ('level = "info"', 'level = "loud"', "log.level"),
        ("port = 0", "port = 99999", "port"),
        ("# life_s = 86400", "life_s = 60", "certificates.life_s"),
        ('addresses = ["127.0.0.1:7601"]', "addresses = []", "addresses"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(config: Path, old: str, new: str, why: str) -> None:
    config.write_text(config.read_text().replace(old, new, 1))
    with pytest.raises(UsageError, match=why):
        app(["run", "--config", str(config)])


@pytest.mark.slow
async def test_killed_in_the_middle_of_an_upload_it_goes_on_where_it_was(
    config: Path, publisher: Publisher
) -> None:
    made = publisher.add_release("1.0", DATA)
    query = {"offset": 0, "length": made.length, "sha256": made.sha256}
    async with running(config) as server, server.client() as client:
        token = trio.lowlevel.current_trio_token()

        def half() -> Iterator[bytes]:
            yield DATA[:3_000_000]
            trio.from_thread.run(
                grown, server.data / "incoming" / made.info_hash, 2_000_000, trio_token=token
            )
            trio.from_thread.run(server.kill, trio_token=token)
            yield DATA[3_000_000:]

        def put() -> None:
            with httpx.Client(verify=server.tls(), headers=dict(client.headers)) as blocking:
                url = f"https://{server.listening['api']}/api/v1/artifacts/{made.info_hash}"
                blocking.put(url, params=query, content=half())

        with pytest.raises(httpx.TransportError):
            await trio.to_thread.run_sync(put)
    async with running(config) as server, server.client() as client:
        operator = Operator(client)
        state = await operator.ask("GET", f"/artifacts/{made.info_hash}", wire.ArtifactState)
        assert 2_000_000 <= state.stored_bytes < made.length and not state.complete
        stored = state.stored_bytes
        assert (await operator.upload(made, DATA[stored:], offset=stored)).complete
        body = wire.NewPublication(
            metadata=publisher.metadata(), torrents={str(made.info_hash): made.torrent}
        )
        assert (await operator.ask("POST", "/publications", wire.Published, body)).releases == 1


async def grown(path: Path, size: int) -> None:
    with trio.fail_after(30):
        while not path.exists() or path.stat().st_size < size:
            await trio.sleep(0.01)
