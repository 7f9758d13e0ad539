"""The program that logs in: it is told on standard input what to do, and answers on standard output.

It runs for one deployment, so that what it knows and what it costs end with it, and ends at once when its
standard input does. Its memory is not written to a core file.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable

from p2pdist import limits
from p2pdist.core.installation import CONNECTION_STEPS, DRY_STEPS, STEPS, Step
from p2pdist.duties.deploy.login import Said, StepError, become_root, connect
from p2pdist.duties.deploy.protocol import (
    LENGTH_BYTES,
    Copied,
    Drop,
    FromWorker,
    Prepare,
    StepDone,
    StepFailed,
    Work,
    decode_to_worker,
    encode_frame,
)
from p2pdist.duties.deploy.target import Target

_COPIED_EVERY_S = 0.5


class Worker:
    """What runs: one task for each host, by its id."""

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def handle(self, message: Work | Drop) -> None:
        """Begin to work on a host, or leave it."""
        identity = message.host.id if isinstance(message, Work) else message.id
        task = self._tasks.pop(identity, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if isinstance(message, Work):
            self._tasks[identity] = asyncio.create_task(self._work(message))

    async def _work(self, work: Work) -> None:
        now: Step = STEPS[0]

        def said(step: Step, found: str = "", *, key: str = "", certificate: bytes = b"") -> None:
            nonlocal now
            now = STEPS[STEPS.index(step) + 1]
            _say(
                StepDone(
                    id=work.host.id,
                    attempt=work.attempt,
                    step=step,
                    found=found[: limits.TEXT_CHARS_MAX],
                    key=key,
                    certificate=certificate,
                )
            )

        try:
            connection = await connect(work.host, self._prepare.credentials, said)
            try:
                machine = await become_root(connection, self._prepare.credentials)
                said("login")
                await self._steps(Target(machine, self._prepare, work.host), work, said)
            finally:
                connection.abort()
        except StepError as error:
            _failed(work, error)
        except Exception as error:  # noqa: BLE001  # one connection's boundary: the others go on
            traceback.print_exc()
            _failed(work, StepError(now, f"a defect, see the log ({type(error).__name__})", final=True))

    async def _steps(self, target: Target, work: Work, said: Said) -> None:
        steps = STEPS[CONNECTION_STEPS : DRY_STEPS if self._prepare.dry_run else len(STEPS) - 1]
        for step in steps:
            again = STEPS.index(step) < STEPS.index(work.resume)
            match step:
                case "platform":  # what later steps need to know
                    found = await target.platform()
                case _ if again:
                    continue
                case "space":
                    found = await target.space()
                case "copy":
                    found = await target.copy(_paced(work, self._prepare.package.length))
                case "service":
                    found = await target.service()
                case "enrol":
                    found, certificate = await target.enrol()
                    said("enrol", found, certificate=certificate)
                    continue
                case "start":
                    found = await target.start()
                case _:
                    raise AssertionError(step)
            if not again:
                said(step, found)


def _failed(work: Work, error: StepError) -> None:
    _say(
        StepFailed(
            id=work.host.id,
            attempt=work.attempt,
            step=error.step,
            reason=error.reason[: limits.TEXT_CHARS_MAX],
            final=error.final,
            key=error.key,
        )
    )


def _paced(work: Work, length: int) -> Callable[[int], None]:
    """Say how much is copied, seldom enough; that all of it is, always."""
    last = 0.0

    def copied(size_bytes: int) -> None:
        nonlocal last
        if size_bytes == length or time.monotonic() - last >= _COPIED_EVERY_S:
            last = time.monotonic()
            _say(Copied(id=work.host.id, attempt=work.attempt, size_bytes=size_bytes))

    return copied


def _say(message: FromWorker) -> None:
    sys.stdout.buffer.write(encode_frame(message))
    sys.stdout.buffer.flush()


async def _serve() -> None:
    reader = asyncio.StreamReader(limit=limits.INSTALL_FRAME_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    worker: Worker | None = None
    while True:
        try:
            length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
            message = decode_to_worker(await reader.readexactly(length))
        except asyncio.IncompleteReadError:
            os._exit(0)  # whoever started us is gone, or done; connections end with us
        if isinstance(message, Prepare):
            worker = Worker(message)
        elif worker is not None:
            await worker.handle(message)


def main() -> None:
    """Run until standard input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
