"""A program: SSH servers, each of which goes along up to one step, and then says nothing more.

    hanging.py ADDRESS PORT STEP...     one server a step, on this port and those that follow

Prints ``ready``, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import asyncssh

ANSWERS = {
    "platform": ("uname -s", os.uname().sysname + "\n" + os.uname().machine + "\ninit\n"),
    "space": ("df -Pk", "x 1 1 999999999 1% /\nx 1 1 999999999 1% /\n"),
    "copy": ("cat >>/opt", ""),
    "service": ("--version", ""),
    "enrol": ("enrolment.json; fi", json.dumps({"fleet": "acme"})),
    "start": ("/etc/init.d/p2pdist-agent start", ""),
}
OTHERS = {"id -u": "0\n", "echo whole": "0\n"}


class Server(asyncssh.SSHServer):
    """Lets everybody in, or nobody ever."""

    def __init__(self, step: str) -> None:
        self._step = step

    def password_auth_supported(self) -> bool:
        return True

    async def validate_password(self, username: str, password: str) -> bool:
        if self._step == "login":
            await asyncio.Event().wait()
        return True


def handler(hangs: str):
    """Return what answers the commands of a session."""

    async def handle(process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        for step, (mark, answer) in ANSWERS.items():
            if mark in command:
                if step == hangs:
                    await asyncio.Event().wait()
                process.stdout.write(answer.encode())
        for mark, answer in OTHERS.items():
            if mark in command:
                process.stdout.write(answer.encode())
        while await process.stdin.read(65_536):
            pass
        process.exit(0)

    return handle


async def main() -> None:
    """Serve."""
    address, first, *steps = sys.argv[1:]
    key = asyncssh.generate_private_key("ssh-ed25519")
    for number, step in enumerate(steps):
        port = int(first) + number
        if step == "key":
            await asyncio.start_server(lambda reader, writer: None, address, port)
        else:
            await asyncssh.listen(
                address,
                port,
                server_host_keys=[key],
                server_factory=lambda step=step: Server(step),
                process_factory=handler(step),
                encoding=None,
                login_timeout=0,
            )
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
