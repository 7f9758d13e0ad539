"""A connection to a machine: its address, its key, our credentials, and how a command runs as root there.

Only the worker imports this (asyncssh, asyncio). A password is sent once for each connection, whatever the
server asks for: accounts are locked for wrong ones. This machine's own SSH configuration is not read.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass

import asyncssh

from p2pdist import limits
from p2pdist.core.hostkeys import is_fingerprint
from p2pdist.core.installation import Step
from p2pdist.duties.deploy.protocol import Credentials, Host

_KEY_ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PREAMBLE = f"export PATH={_PATH} LC_ALL=C; umask 077; "
_WORDS_MAX = 300


class StepError(Exception):
    """A step failed. ``final``: another try would fail, too, or do harm."""

    def __init__(self, step: Step, reason: str, *, final: bool = False, key: str = "") -> None:
        super().__init__(reason)
        self.step: Step = step
        self.reason = reason
        self.final = final
        self.key = key


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended. ``code`` is negative where a signal ended it."""

    code: int
    output: str
    complaint: str
    """What it said on standard error, in one line, cut."""


Said = Callable[..., None]
"""Called with a step that is done, and what it found out."""


class _Client(asyncssh.SSHClient):
    """Checks the host's key, and gives each credential away once: keys first, then the password."""

    def __init__(
        self, host: Host, credentials: Credentials, keys: list[asyncssh.SSHKeyPair], said: Said
    ) -> None:
        self._host = host
        self._credentials = credentials
        self._keys = keys
        self._said = said
        self.password_sent = False
        self.key = ""
        self.fingerprint = ""
        self.known = False

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.key = " ".join(key.export_public_key("openssh").decode("ascii").split()[:2])
        self.fingerprint = key.get_fingerprint()
        pinned = self._host.key
        shown = self.fingerprint if is_fingerprint(pinned) else self.key
        self.known = self._host.first_use if not pinned else shown == _plain_key(pinned)
        if self.known:
            self._said("key", self.fingerprint, key=self.key)
        return self.known

    def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        return [self._keys.pop(0)] if self._keys else None

    def password_auth_requested(self) -> str | None:
        return self._once()

    def kbdint_auth_requested(self) -> str | None:
        return "" if self._credentials.password and not self.password_sent else None

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        if not prompts:
            return []
        if len(prompts) > 1 or prompts[0][1]:  # more than one question, or one whose answer may be shown
            return None
        password = self._once()
        return None if password is None else [password]

    def _once(self) -> str | None:
        if self.password_sent or not self._credentials.password:
            return None
        self.password_sent = True
        return self._credentials.password


class Machine:
    """A machine on which commands run as root. Made by :func:`become_root`."""

    def __init__(self, connection: asyncssh.SSHClientConnection, prefix: str, password: bytes) -> None:
        self._connection = connection
        self._prefix = prefix
        self._password = password

    async def run(self, script: str, data: bytes | AsyncIterable[bytes] = b"", *, step: Step) -> Done:
        """Run a shell script of one line as root, with *data* as its input.

        Raises:
            StepError: the connection broke, or it said too much.
        """
        command = f"{self._prefix}sh -c {shlex.quote(_PREAMBLE + script)}"
        try:
            process = await self._connection.create_process(command, encoding=None)
        except (asyncssh.Error, OSError) as error:
            raise StepError(step, f"no command could be started there ({_words(error)})") from None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_write(process, self._password, data))
                output = group.create_task(_read(process.stdout, step))
                complaint = group.create_task(_read(process.stderr, step))
            await process.wait_closed()
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            if isinstance(first, StepError):
                raise first from None
            if not isinstance(first, asyncssh.Error | OSError):
                raise
            raise StepError(step, f"the connection broke ({_words(first)})") from None
        finally:
            process.close()
        if process.exit_status is None:
            raise StepError(step, "the connection broke while a command ran")
        text = complaint.result().decode(errors="replace")
        return Done(
            code=process.exit_status,
            output=output.result().decode(errors="replace"),
            complaint=" ".join(text.split())[-_WORDS_MAX:],
        )


async def connect(host: Host, credentials: Credentials, said: Said) -> asyncssh.SSHClientConnection:
    """Do the steps ``reach`` and ``key``, and log in; the caller closes the connection.

    Raises:
        StepError: one of them failed.
    """
    reached = await _reach(host)
    said("reach")
    agent = None
    try:
        keys = _own_keys(credentials)
        if credentials.agent:
            agent = await asyncssh.connect_agent(os.environ.get("SSH_AUTH_SOCK", ""))
            keys += await agent.get_keys()
        return await _connect(reached, host, credentials, _Client(host, credentials, keys, said))
    except (asyncssh.Error, OSError, ValueError) as error:
        raise StepError("login", f"the SSH agent: {_words(error)}", final=True) from None
    finally:
        if agent is not None:
            agent.close()


async def _connect(
    reached: socket.socket, host: Host, credentials: Credentials, client: _Client
) -> asyncssh.SSHClientConnection:
    try:
        return await asyncssh.connect(sock=reached, config=None, **_options(host, credentials, client))
    except asyncssh.HostKeyNotVerifiable:
        if client.known:
            raise StepError("key", "the host has not proved that its key is its own", final=True) from None
        expected = f"not the one that is pinned ({_fingerprint(host.key)})" if host.key else "not known here"
        reason = f"its key {client.fingerprint} is {expected}"
        raise StepError("key", reason, final=True, key=client.key) from None
    except asyncssh.KeyExchangeFailed as error:
        raise StepError("key", _words(error), final=bool(host.key)) from None  # it has no key of that kind
    except asyncssh.PermissionDenied:
        tried = "password" if client.password_sent else "key"
        raise StepError(
            "login", f"it does not let {credentials.user} in with this {tried}", final=True
        ) from None
    except (asyncssh.Error, OSError) as error:
        step: Step = "login" if client.known else "key"
        raise StepError(step, _words(error), final=client.password_sent) from None


async def become_root(connection: asyncssh.SSHClientConnection, credentials: Credentials) -> Machine:
    """Finish the step ``login``: find out how commands run as root.

    Raises:
        StepError: they do not.
    """
    plain = Machine(connection, "", b"")
    if not credentials.sudo:
        if (await plain.run("id -u", step="login")).output.strip() != "0":
            raise StepError(
                "login", f"{credentials.user} is not root there; sudo was not asked for", final=True
            )
        return plain
    free = Machine(connection, "sudo -n ", b"")
    if (await free.run("id -u", step="login")).output.strip() == "0":
        return free
    if not credentials.sudo_password:
        raise StepError("login", f"sudo wants a password of {credentials.user} there", final=True)
    # -k: a password that was given a moment ago is not remembered, so exactly one line is always read.
    asking = Machine(connection, "sudo -k -S -p '' ", credentials.sudo_password.encode() + b"\n")
    done = await asking.run("id -u", step="login")
    if done.output.strip() != "0":
        raise StepError("login", f"sudo refused: {done.complaint or done.code}", final=True)
    return asking


async def _reach(host: Host) -> socket.socket:
    loop = asyncio.get_running_loop()
    problem = "it has no address"
    try:
        found = await loop.getaddrinfo(host.address, host.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StepError("reach", f"{host.address}: {_words(error)}") from None
    for family, kind, protocol, _, address in found[:4]:
        reached = socket.socket(family, kind, protocol)
        try:
            reached.setblocking(False)
            await loop.sock_connect(reached, address)
        except OSError as error:
            reached.close()
            problem = error.strerror or str(error)
        except BaseException:
            reached.close()
            raise
        else:
            return reached
    raise StepError("reach", f"port {host.port} of {host.address}: {problem}")


def _own_keys(credentials: Credentials) -> list[asyncssh.SSHKeyPair]:
    if not credentials.key:
        return []
    try:
        key = asyncssh.import_private_key(credentials.key, credentials.passphrase or None)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        reason = f"the private key cannot be used ({_words(error)})"
        raise StepError("login", reason, final=True) from None
    return list(asyncssh.load_keypairs([key]))


def _options(host: Host, credentials: Credentials, client: _Client) -> dict[str, object]:
    algorithms = list(_KEY_ALGORITHMS)
    if host.key and not is_fingerprint(host.key):
        try:
            pinned = asyncssh.import_public_key(host.key)
        except asyncssh.KeyImportError:
            raise StepError("key", f"the key that is pinned is none: {host.key[:60]}", final=True) from None
        algorithms = [algorithm.decode("ascii") for algorithm in pinned.sig_algorithms]
    return {
        "client_factory": lambda: client,
        "known_hosts": ([], [], []),  # whatever key comes, our client is asked
        "server_host_key_algs": algorithms,
        "username": credentials.user,
        "client_keys": None,  # our client is asked: an empty list would mean those of this machine's user
        "gss_host": None,
        "gss_kex": False,
        "host_based_auth": False,
        "login_timeout": 0,  # whoever gave the work has a clock for every step
        "keepalive_interval": 10,
        "preferred_auth": ["publickey", "password", "keyboard-interactive"],
    }


async def _write(
    process: asyncssh.SSHClientProcess[bytes], first: bytes, data: bytes | AsyncIterable[bytes]
) -> None:
    """Write all of it; a command that ends without reading it says why by its exit code."""
    try:
        process.stdin.write(first)
        if isinstance(data, bytes):
            process.stdin.write(data)
        else:
            async for chunk in data:
                process.stdin.write(chunk)
                await process.stdin.drain()
        await process.stdin.drain()
        process.stdin.write_eof()
    except (BrokenPipeError, ConnectionError):
        return


async def _read(reader: asyncssh.SSHReader[bytes], step: Step) -> bytes:
    found = bytearray()
    while chunk := await reader.read(limits.INSTALL_OUTPUT_BYTES_MAX):
        found += chunk
        if len(found) > limits.INSTALL_OUTPUT_BYTES_MAX:
            raise StepError(
                step, "a command said far more than it should; is this the right machine?", final=True
            )
    return bytes(found)


def _plain_key(line: str) -> str:
    return " ".join(line.split()[:2])


def _fingerprint(line: str) -> str:
    return line if is_fingerprint(line) else asyncssh.import_public_key(line).get_fingerprint()


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:_WORDS_MAX] or type(error).__name__
