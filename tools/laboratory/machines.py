"""Bare machines on hosts of a laboratory: OpenSSH's server, a file system and processes of their own, and no
Python.

A machine's root is this machine's with a layer in memory over it, so that what is done there is seen by
nobody else and gone with it. That takes root. Where Avahi is installed it tells the machine's name to its
segment.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from laboratory.namespaces import PATH, LaboratoryError, why_not

_BUILD = """
mount -t tmpfs -o "size=$2,mode=755" machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" machine "$1/root"
cd "$1/root"
hostname "$5"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=755 run run
mkdir -p run/sshd run/lock run/avahi-daemon tmp
chmod 1777 tmp
tr -d - <proc/sys/kernel/random/uuid >etc/machine-id
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
chroot . sh -ec "$6" </dev/null &
exec chroot . /usr/sbin/sshd -D -e -f /etc/ssh/bare_config
"""
_SSHD = """\
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
_ANNOUNCE = """
command -v avahi-daemon >/dev/null || exit 0
mkdir -p /run/avahi-daemon
cat >/run/announced.conf <<end
[server]
host-name={name}
enable-dbus=no
[publish]
publish-workstation=yes
end
exec avahi-daemon --file=/run/announced.conf --no-drop-root --no-chroot --no-rlimits >/dev/null 2>&1
"""
_NEEDS = ("sshd", "ssh-keygen", "sudo", "chpasswd")


@functools.cache
def why_no_machines() -> str:
    """Say why there can be no bare machines here; an empty string if there can."""
    if os.geteuid() != 0:
        return "changes the root of programs: needs root"
    missing = [tool for tool in _NEEDS if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (packages: openssh-server openssh-client sudo passwd)"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "this kernel has no overlay file system"
    return why_not() or ""


def announcing(name: str) -> list[str]:
    """Return the command line that says *name* to the segment by Avahi, and ends at once where that is not
    installed. It changes mounts of its own only, for which it needs root."""
    return ["unshare", "--mount", "sh", "-ec", "mount -t tmpfs run /run" + _ANNOUNCE.format(name=name)]


class BareMachine:
    """One of them. Everything on it ends with it.

    Args:
        directory: A directory of its own, which is made.
        address: Where its SSH server listens; the network has it already.
        within: Makes a command line one that runs in that network.
        name: What it calls itself.
        user: Somebody who may become root with sudo.
        password: That user's, and root's.
        size: How much may be written to its disk, as of mount(8).

    Attributes:
        root: Its file system, as this machine sees it.
        upper: Of it what is not this machine's.
        pid: The process that ends everything on it with itself.

    Raises:
        LaboratoryError: it does not start; says what its programs said.
    """

    def __init__(
        self,
        directory: Path,
        address: str,
        within: Callable[..., list[str]],
        *,
        name: str,
        user: str,
        password: str,
        size: str = "600m",
    ) -> None:
        directory.mkdir()
        self.name = name
        self.address = address
        self._log = directory / "sshd.log"
        mount = directory / "machine"
        mount.mkdir()
        command = within(
            *("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation=private"),
            *("sh", "-ec", _BUILD, "sh", str(mount), size, user, password, name),
            _ANNOUNCE.format(name=name),
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
        self.pid = self._process.pid
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:  # an end is said below
            stdin.write(_SSHD.format(address=address).encode())
        while "Server listening" not in self.log:
            if self._process.poll() is not None:
                raise LaboratoryError(f"the machine {name} did not start: {self.log.strip()[-500:]}")
            time.sleep(0.01)  # until the file has grown: it is read without a thread that waits
        # nsenter has become unshare, whose child is the first process in there.
        (first,) = _children(self.pid)
        self.root = Path(f"/proc/{first}/root")
        self.upper = Path(f"/proc/{self.pid}/root{mount}/upper")

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

    def shadow(self, program: str, script: str) -> None:
        """Put a program of this name before the machine's own."""
        path = self.root / "usr/local/sbin" / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def end(self) -> None:
        """End it, with all of its processes."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def _children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
