"""A fleet as its founders leave it: founded by commands as the operator's guide says, once in a test run.

Whoever needs one copies it: the operator's files, and those of an admin server that has stopped.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
import tomllib
from pathlib import Path

from laboratory.network import Host
from matrix.programs import Programs

LINK_PORT, API_PORT = 7601, 7600
_PATIENCE_S = 60.0


class Founding:
    """The fleet that was founded, in a directory that all processes of a test run share.

    The admin server of every laboratory has the same addresses.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def copy(self, server: Host, to: Path) -> None:
        """Put the fleet's files into a directory; its admin server then starts on this host."""
        with self._directory.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._directory.exists():
                unfinished = self._directory.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                _found(unfinished, server)
                unfinished.rename(self._directory)
        shutil.copytree(self._directory, to, symlinks=True, dirs_exist_ok=True)
        config = to / "server" / "server.toml"
        text = config.read_text()
        config.write_text(text.replace(tomllib.loads(text)["server"]["data"], str(config.parent)))


def _found(directory: Path, server: Host) -> None:
    """Hold the ceremony, make the admin server and log in to it, publish; it has stopped in the end."""
    operator, data = directory / "operator", directory / "server"
    operator.mkdir(mode=0o700)
    publication = operator / "publication"
    passphrases = {key: operator / f"passphrase-{key}" for key in ("alice", "online")}
    for path in passphrases.values():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    alice, online = (("--passphrase-file", f"{key}={path}") for key, path in passphrases.items())
    with Programs(directory) as programs:

        def operate(*words: str | Path) -> None:
            programs.run(server, *words)

        init = ("init", "--fleet", "lab", "--root", "alice", "--threshold", "1", "--kdf", "interactive")
        operate("p2pdist-sign", *init, *alice, *online)
        operate("p2pdist-sign", "channel", "add", "stable", "--key", "alice")
        operate("p2pdist-sign", "sign", "--key", "alice", "--yes", *alice)
        operate("p2pdist-sign", "publish", publication, *online)
        address = server.ipv4[0]
        api = f"{address}:{API_PORT}"
        operate(
            "p2pdist-server", "init", "--data", data, "--fleet", "lab",
            "--root", publication / "metadata" / "1.root.json",
            "--online-key", operator / "signing" / "keys" / "online.key",
            "--passphrase-file", passphrases["online"],
            "--api", api, "--address", f"{address}:{LINK_PORT}",
        )  # fmt: skip
        log = programs.start("founding", server, "p2pdist-server", "run", "--config", data / "server.toml")
        programs.until(
            lambda: "server.ready" in log.path.read_text(),
            "the admin server is ready",
            patience_s=_PATIENCE_S,
        )
        ca, token = data / "ca.pem", data / "operator.token"
        operate("p2pdist", "login", f"https://{api}", "--token-file", token, "--ca", ca)
        operate("p2pdist", "publish", publication)
        operate("p2pdist", "enrolment", "--to", operator / "bundle")
