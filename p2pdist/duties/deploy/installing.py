"""Install the agent on many machines: the decisions of ``core``, carried out by a worker that may die."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import msgspec
import trio

from p2pdist import limits
from p2pdist.core.installation import (
    Abandon,
    AwaitReport,
    Begin,
    Installation,
    InstallationSettings,
    Outcome,
    State,
    Step,
    Tell,
)
from p2pdist.duties.deploy.protocol import (
    Copied,
    Credentials,
    Drop,
    FrameReader,
    FromWorker,
    Host,
    Package,
    Prepare,
    StepDone,
    StepFailed,
    ToWorker,
    Work,
    encode_frame,
)
from p2pdist.errors import P2PDistError, PeerError, Unavailable, sole_error
from p2pdist.ids import NodeId
from p2pdist.trust.certificates import parse_certificate

_READ_BYTES = 64 * limits.KIB
_SEND_S = 10.0  # a worker that runs reads at once
_END_S = 5.0  # a killed process is gone at once, unless the kernel holds it
_COMMAND = (sys.executable, "-m", "p2pdist.duties.deploy.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be done. See :class:`~p2pdist.duties.deploy.protocol.Prepare` for what is the same there."""

    hosts: Sequence[Host]
    credentials: Credentials
    package: Package
    bundle: bytes
    config: str = ""
    settings: InstallationSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """How far a host is.

    Attributes:
        step: The one that is being done, or was when it ended.
        detail: What the last step found out, or why it failed.
        key: The key that the host showed, as OpenSSH writes it.
        node: The node that it has become.
        copied_bytes: So much of the agent's file is there.
    """

    host: str
    step: Step = "reach"
    state: State = "waiting"
    detail: str = ""
    key: str = ""
    node: NodeId | None = None
    copied_bytes: int = 0


async def install(
    order: Order,
    *,
    tell: Callable[[HostState], Awaitable[None]],
    reported: Callable[[NodeId], Awaitable[None]],
) -> Outcome:
    """Install the agent on every host of *order*; return what came of it.

    Args:
        tell: Called with each change of a host's state, one at a time.
        reported: Returns once this node has come to the admin server.

    Raises:
        UsageError: the list of hosts makes no sense.
        Unavailable: no worker could be started, or each ended by itself.

    Cancellation ends the worker, and with it every connection. The order can be given again: hosts go on
    where they were left.
    """
    try:
        return await _Run(order, tell, reported).run()
    except BaseExceptionGroup as group:
        raise sole_error(group) from None


class _Run:
    def __init__(
        self,
        order: Order,
        tell: Callable[[HostState], Awaitable[None]],
        reported: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        self._order = order
        self._tell = tell
        self._reported = reported
        one_login = bool(order.credentials.password or order.credentials.sudo_password)
        settings = replace(order.settings, one_login=one_login)
        self._machine = Installation([host.id for host in order.hosts], settings)
        self._hosts = {host.id: host for host in order.hosts}
        self._states = {host.id: HostState(host=host.id) for host in order.hosts}
        self._news = trio.Event()

    async def run(self) -> Outcome:
        self._machine.handle_time(trio.current_time())
        async with trio.open_nursery() as nursery:
            for _ in range(limits.INSTALL_WORKERS_MAX):
                async with _worker(self._order) as process:
                    if await self._with_worker(process, nursery):
                        nursery.cancel_scope.cancel()
                        return self._machine.outcome
                self._machine.handle_worker_lost("what worked on it has ended", trio.current_time())
        raise Unavailable(
            f"the deployment's worker has ended by itself {limits.INSTALL_WORKERS_MAX} times",
            hint="its messages are in the log; free memory, then install again",
        )

    async def _with_worker(self, process: trio.Process, nursery: trio.Nursery) -> bool:
        """Go on until all has ended (true), or the worker (false)."""
        lost = False
        async with trio.open_nursery() as inner:

            async def listen() -> None:
                nonlocal lost
                await self._listen(process)
                lost = True
                self._news.set()

            inner.start_soon(listen)
            while not lost:
                self._news = trio.Event()
                if not await self._obey(process, nursery):
                    break
                if self._machine.ended:
                    inner.cancel_scope.cancel()
                    return True
                deadline = self._machine.next_deadline()
                with trio.move_on_at(math.inf if deadline is None else deadline):
                    await self._news.wait()
                self._machine.handle_time(trio.current_time())
            inner.cancel_scope.cancel()
        return False

    async def _obey(self, process: trio.Process, nursery: trio.Nursery) -> bool:
        """Do what the machine wants; return whether the worker still takes it."""
        while (command := self._machine.poll_command()) is not None:
            message: ToWorker | None = None
            match command:
                case Begin(host=host, attempt=attempt, resume=resume):
                    message = Work(host=self._hosts[host], attempt=attempt, resume=resume)
                case Abandon(host=host, attempt=attempt):
                    message = Drop(id=host, attempt=attempt)
                case AwaitReport(host=host, attempt=attempt):
                    nursery.start_soon(self._await_report, host, attempt)
                case Tell(host=host, step=step, state=state, reason=reason):
                    await self._change(
                        host, step=step, state=state, detail=reason or self._states[host].detail
                    )
            if message is not None and not await _send(process, message):
                return False
        return True

    async def _listen(self, process: trio.Process) -> None:
        assert process.stdout is not None
        frames = FrameReader()
        try:
            async for data in process.stdout:
                for message in frames.feed(data):
                    await self._hear(message)
                    self._news.set()
        except PeerError:
            process.kill()

    async def _hear(self, message: FromWorker) -> None:
        now = trio.current_time()
        match message:
            case Copied(id=host, attempt=attempt, size_bytes=size):
                self._machine.handle_copying(host, attempt, now)
                await self._change(host, copied_bytes=size)
            case StepDone(id=host, attempt=attempt, step=step, found=found):
                if message.key and not self._hosts[host].key:  # of its first use, and for good
                    self._hosts[host] = msgspec.structs.replace(self._hosts[host], key=message.key)
                self._states[host] = replace(
                    self._states[host],
                    detail=found,
                    key=message.key or self._states[host].key,
                    node=_node(message.certificate) or self._states[host].node,
                )
                self._machine.handle_step_done(host, attempt, step, now)
            case StepFailed(id=host, attempt=attempt, reason=reason, final=final):
                if message.key:
                    self._states[host] = replace(self._states[host], key=message.key)
                self._machine.handle_failure(host, attempt, reason, final=final, now=now)

    async def _await_report(self, host: str, attempt: int) -> None:
        node = self._states[host].node
        if node is None:
            self._machine.handle_failure(
                host, attempt, "its certificate was not readable", final=True, now=trio.current_time()
            )
        else:
            await self._reported(node)
            self._machine.handle_step_done(host, attempt, "report", trio.current_time())
        self._news.set()

    async def _change(self, host: str, **changes: object) -> None:
        self._states[host] = replace(self._states[host], **changes)  # type: ignore[arg-type]  # by name
        await self._tell(self._states[host])


def _node(certificate: bytes) -> NodeId | None:
    try:
        return parse_certificate(certificate).node if certificate else None
    except P2PDistError:
        return None


@asynccontextmanager
async def _worker(order: Order) -> AsyncGenerator[trio.Process]:
    """Start a worker and tell it what holds for all hosts; end it with the block."""
    prepare = Prepare(
        credentials=order.credentials,
        package=order.package,
        bundle=order.bundle,
        config=order.config,
        dry_run=order.settings.dry_run,
    )
    try:
        process = await trio.lowlevel.open_process(
            list(_COMMAND), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    except OSError as error:
        raise Unavailable(f"the deployment's worker cannot be started ({error.strerror})") from error
    try:
        await _send(process, prepare)
        yield process
    finally:
        process.kill()
        with trio.move_on_after(_END_S, shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                await stream.aclose()


async def _send(process: trio.Process, message: ToWorker) -> bool:
    """Tell the worker; return whether it took it, which one that is stopped or dead does not."""
    assert process.stdin is not None
    try:
        with trio.fail_after(_SEND_S):
            await process.stdin.send_all(encode_frame(message))
    except (trio.BrokenResourceError, trio.TooSlowError):
        return False
    return True
