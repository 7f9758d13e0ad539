"""The steps on the machine itself. Each looks first at what is there, so that one who comes again goes on.

``/opt/p2pdist-agent/versions/HASH/p2pdist-agent`` is a version of the agent, there only when it is whole;
``/opt/p2pdist-agent/p2pdist-agent`` is a link to the one in use.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from p2pdist import limits
from p2pdist.core.installation import Step
from p2pdist.duties.deploy import service
from p2pdist.duties.deploy.login import Done, Machine, StepError
from p2pdist.duties.deploy.protocol import Host, Package, Prepare

_TIMES_LENGTH = 5
"""Free space for the agent, in lengths of its file: that, and twice the two to which it unpacks."""
_FULL = "No space left on device"
_EXIT_AGAIN = 5  # of our programs: unavailable now


class Target:
    """One machine, as root."""

    def __init__(self, machine: Machine, order: Prepare, host: Host) -> None:
        self._machine = machine
        self._order = order
        self._host = host
        directory = f"{service.PLACE}/versions/{order.package.sha256[:16]}"
        self._file = f"{directory}/p2pdist-agent"
        self._manager: service.Manager = "systemd"

    async def platform(self) -> str:
        """Check that the agent's file is for this machine; return what it is."""
        done = await self._run(
            "platform",
            "uname -s; uname -m; if [ -d /run/systemd/system ]; then echo systemd;"
            " elif command -v start-stop-daemon >/dev/null; then echo init; else echo none; fi",
        )
        system, processor, manager, *_ = [*done.output.split(), "", "", ""]
        found = f"{system.lower()}-{processor.lower()}"
        wanted = self._order.package.platform
        if found != wanted:
            raise StepError("platform", f"the machine is {found[:60]}, the agent for {wanted}", final=True)
        if manager not in ("systemd", "init"):
            raise StepError("platform", "it has neither systemd nor start-stop-daemon", final=True)
        self._manager = "systemd" if manager == "systemd" else "init"
        return f"{found}, {manager}"

    async def space(self) -> str:
        """Check that there is room, unless the agent is there already; return how much."""
        script = (
            f"if [ -e {self._file} ]; then echo there; exit; fi; "
            f"for place in {service.PLACE} {service.UNPACKED}; do "
            'while [ ! -d "$place" ]; do place=$(dirname "$place"); done; df -Pk "$place" | tail -n 1; done'
        )
        done = await self._run("space", script)
        if done.output.strip() == "there":
            return "the agent is there"
        try:
            free = min(int(line.split()[3]) for line in done.output.splitlines()) * limits.KIB
        except (ValueError, IndexError):
            raise StepError("space", f"df said something else: {done.output[:100]!r}", final=True) from None
        needed = _TIMES_LENGTH * self._order.package.length
        if free < needed:
            raise StepError(
                "space", f"{free // 10**6} MB are free, and it takes {needed // 10**6} MB", final=True
            )
        return f"{free // 10**6} MB free"

    async def copy(self, copied: Callable[[int], None]) -> str:
        """Bring the agent's file there, from the byte at which an earlier try stopped; return what was sent.

        Args:
            copied: Told how many bytes are there.
        """
        package, part = self._order.package, f"{self._file}.part"
        look = (
            f'if [ -e {self._file} ] && [ "$(sha256sum <{self._file} | cut -c1-64)" = {package.sha256} ];'
            f" then echo whole; elif [ -e {part} ]; then"
            # An earlier try may still hold it open, and write to it later: not to this copy.
            f" cp {part} {part}.new && mv {part}.new {part} && stat -c %s {part}; else echo 0; fi"
        )
        found = (await self._run("copy", look)).output.strip()
        if found == "whole":
            return "it was there"
        begin = int(found) if found.isdecimal() and int(found) <= package.length else 0
        directory = str(Path(self._file).parent)
        await self._run(
            "copy",
            f"mkdir -p -m 755 {service.PLACE} {service.PLACE}/versions {directory}",
        )
        fresh = "" if begin else f"rm -f {part}; "
        await self._run("copy", f"{fresh}cat >>{part}", _chunks(package, begin, copied))
        check = (
            f'if [ "$(sha256sum <{part} | cut -c1-64)" != {package.sha256} ]; then rm -f {part}; exit 9; fi; '
            f"chmod 755 {part} && sync {part} && mv {part} {self._file} && chmod 755 {directory}"
        )
        await self._run("copy", check, what={9: "what arrived is not the file; it is sent again"})
        return f"{package.length - begin} bytes sent"

    async def service(self) -> str:
        """Have this version in use, and the service described; return by what it is run."""
        link, new = service.PROGRAM, f"{service.PROGRAM}.new"
        await self._run(
            "service",
            f"mkdir -p -m 755 {Path(service.CONFIG).parent}"
            f" && mkdir -p -m 700 {service.DATA} {service.UNPACKED}"
            f" && TMPDIR={service.UNPACKED} {self._file} --version >/dev/null"
            f' && old=$(readlink {link} || true); if [ "$old" != {self._file} ]; then'
            f" {service.STOP[self._manager]}; rm -f {service.TRIALS};"
            f" ln -sfn {self._file} {new} && mv -T {new} {link} &&"
            f" for each in {service.PLACE}/versions/*; do"  # the one before stays, to go back to
            f' case "$each/p2pdist-agent" in {self._file} | "$old") ;; *) rm -rf "$each" ;; esac; done; fi',
        )
        for path, mode, content in service.FILES[self._manager]:
            await self._write(path, mode, content, keep=False)
        await self._write(service.CONFIG, "644", self._order.config, keep=True)
        await self._run("service", service.ENABLE[self._manager])
        return self._manager

    async def enrol(self) -> tuple[str, bytes]:
        """Make the machine a member, unless it is one; return what it is, and its certificate."""
        fleet = json.loads(self._order.bundle)["fleet"]
        look = f"if [ -e {service.DATA}/certificate.pem ]; then cat {service.DATA}/enrolment.json; fi"
        found = (await self._run("enrol", look)).output
        if found.strip():
            try:
                of = json.loads(found)["fleet"]
            except (ValueError, KeyError, TypeError):
                of = "an unknown one"
            if of != fleet:
                raise StepError("enrol", f"it is a member of another fleet: {of!s:.64}", final=True)
            said = "it was a member"
        else:
            command = (
                f"TMPDIR={service.UNPACKED} {service.PROGRAM} enrol --bundle=- --token-file=-"
                f" --data={service.DATA}"
            )
            data = self._host.token.encode() + b"\n" + self._order.bundle
            done = await self._machine.run(command, data, step="enrol")
            if done.code:
                again = done.code == _EXIT_AGAIN and _FULL not in done.complaint
                raise StepError("enrol", done.complaint or f"exit code {done.code}", final=not again)
            said = done.output.strip().splitlines()[-1] if done.output.strip() else ""
        certificate = await self._run("enrol", f"cat {service.DATA}/certificate.pem")
        return said, certificate.output.encode()

    async def start(self) -> str:
        """Have the service run this version."""
        await self._run("start", service.START[self._manager])
        return "it runs"

    async def _write(self, path: str, mode: str, content: str, *, keep: bool) -> None:
        script = f"cat >{path}.new && chmod {mode} {path}.new && mv {path}.new {path}"
        if keep:
            script = f"if [ -e {path} ]; then cat >/dev/null; else {script}; fi"
        await self._run("service", script, content.encode())

    async def _run(
        self,
        step: Step,
        script: str,
        data: bytes | AsyncIterator[bytes] = b"",
        what: dict[int, str] | None = None,
    ) -> Done:
        done = await self._machine.run(script, data, step=step)
        if done.code:
            full = _FULL in done.complaint
            reason = (what or {}).get(done.code, done.complaint or f"exit code {done.code}")
            raise StepError(step, "its disk is full" if full else reason, final=full)
        return done


async def _chunks(package: Package, begin: int, copied: Callable[[int], None]) -> AsyncIterator[bytes]:
    sent = begin
    with Path(package.path).open("rb") as file:
        file.seek(begin)
        while chunk := file.read(min(limits.INSTALL_CHUNK_BYTES, package.length - sent)):
            yield chunk
            sent += len(chunk)
            copied(sent)
