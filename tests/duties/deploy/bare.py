"""Bare machines: each with OpenSSH's server, a file system and processes of its own, and no Python.

A machine's root is this machine's with a layer in memory over it, so that what is done there is seen by
nobody else and gone with it. That takes root. The machines of a test share a network namespace, with an
address each.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from laboratory.namespaces import PATH, Namespace, Namespaces, why_not

from p2pdist.duties.deploy.protocol import Host

PASSWORD = "correct-horse-battery"
OPERATOR = "bare-operator"

_BUILD = """
mount -t tmpfs -o "size=$2,mode=755" machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" machine "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=755 run run
mkdir -p run/sshd run/lock tmp
chmod 1777 tmp
rm -rf opt/p2pdist-agent etc/p2pdist var/lib/p2pdist var/cache/p2pdist etc/init.d/p2pdist-agent
rm -f usr/bin/python* usr/local/bin/python*
mount -t tmpfs -o mode=700 home root
for user in root "$3"; do
    [ "$user" = root ] || chroot . useradd --create-home --shell /bin/sh "$user"
    echo "$user:$4" | chroot . chpasswd
done
echo "$3 ALL=(ALL) ALL" >etc/sudoers.d/bare
chmod 440 etc/sudoers.d/bare
ssh-keygen -q -t ed25519 -N '' -f etc/ssh/bare_key
cat >etc/ssh/bare_config
exec chroot . /usr/sbin/sshd -D -e -f /etc/ssh/bare_config
"""
_CONFIG = """\
Port 22
ListenAddress {address}
HostKey /etc/ssh/bare_key
AuthorizedKeysFile /etc/ssh/bare_authorized
UsePAM no
PermitRootLogin yes
PasswordAuthentication yes
StrictModes no
PidFile none
MaxStartups 100
LogLevel VERBOSE
"""


@functools.cache
def why_no_machines() -> str:
    """Say why there can be no bare machines here; an empty string if there can."""
    if os.geteuid() != 0:
        return "changes the root of programs: needs root"
    missing = [tool for tool in ("sshd", "sudo", "chpasswd") if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (packages: openssh-server sudo passwd)"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "this kernel has no overlay file system"
    return why_not() or ""


needs_machines = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_machines()), reason=why_no_machines()),
]


class BareMachine:
    """One of them. Everything on it ends with it.

    Attributes:
        root: Its file system, as this machine sees it.
        upper: Of it what is not this machine's.
        log: What its SSH server has logged.
    """

    def __init__(
        self, directory: Path, address: str, within: Callable[..., list[str]], *, size: str = "600m"
    ) -> None:
        directory.mkdir()
        self.address = address
        self._log = directory / "sshd.log"
        mount = directory / "machine"
        mount.mkdir()
        command = within(
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"),
            *("sh", "-ec", _BUILD, "sh", str(mount), size, OPERATOR, PASSWORD),
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PATH": PATH},
            )
        assert self._process.stdin is not None
        self._process.stdin.write(_CONFIG.format(address=address).encode())
        self._process.stdin.close()
        while "Server listening" not in self.log:
            assert self._process.poll() is None, self.log
            time.sleep(0.01)  # until the file has grown: it is read without a thread that waits
        # nsenter has become unshare, whose child is the first process in there.
        (first,) = _children(self._process.pid)
        self.root = Path(f"/proc/{first}/root")
        self.upper = Path(f"/proc/{self._process.pid}/root{mount}/upper")

    @property
    def log(self) -> str:
        """What its SSH server has logged."""
        return self._log.read_text(errors="replace")

    @property
    def key(self) -> str:
        """Its host key."""
        return (self.root / "etc/ssh/bare_key.pub").read_text().strip()

    def authorize(self, public_key: str) -> None:
        """Let the holder of a key in."""
        (self.root / "etc/ssh/bare_authorized").write_text(public_key)

    def host(self, name: str, **fields: object) -> Host:
        """Return what somebody who knows it says of it."""
        fields = {"key": self.key, "token": f"token-of-{name}", **fields}
        return Host(id=name, address=self.address, **fields)  # type: ignore[arg-type]  # by name

    def shadow(self, program: str, script: str) -> None:
        """Put a program of this name before the machine's own."""
        path = self.root / "usr/local/sbin" / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def end(self) -> None:
        """End it, with all of its processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


class Machines:
    """Makes machines in one network. ``within`` makes a command line one that runs in that network."""

    def __init__(self, directory: Path, namespace: Namespace) -> None:
        self._directory = directory
        self.namespace = namespace
        self._made: list[BareMachine] = []
        self.within = namespace.command

    def add(self, *, size: str = "600m") -> BareMachine:
        """Make one more."""
        number = len(self._made) + 1
        address = f"10.99.0.{number}"
        self.namespace.ip(f"address add {address}/32 dev lo")
        machine = BareMachine(self._directory / f"machine{number}", address, self.within, size=size)
        self._made.append(machine)
        return machine

    def end(self) -> None:
        """End all of them."""
        for machine in self._made:
            machine.end()


@contextmanager
def machines_in(directory: Path) -> Iterator[Machines]:
    """Make a network for machines, and end them all with the block."""
    with Namespaces() as namespaces:
        machines = Machines(directory, namespaces.create("site"))
        try:
            yield machines
        finally:
            machines.end()
