"""What a program tells the supervisor that started it, and that a program which hangs tells it nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from p2pdist.errors import UsageError
from p2pdist.node.program import run_program
from p2pdist.node.supervisor import notify_ready, notify_stopping, patience, show_life, watchdog_s

READY_S = 30.0
WATCHDOG_S = 2.0

PROGRAM = """
import signal, sys, time, trio
from p2pdist.node.program import run_program
from p2pdist.node.supervisor import notify_ready

async def main():
    notify_ready("nothing")
    if sys.argv[1] == "hangs":
        signal.pause()  # on trio's own thread
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(float(sys.argv[2]))

sys.exit(run_program(main))
"""


class Supervisor:
    """The socket at which a supervisor listens."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """Everything that came, in order."""
        said = []
        while True:
            try:
                said.append(self.socket.recv(4_096).decode())
            except BlockingIOError:
                return said

    async def hears(self, what: str) -> None:
        """Wait until a message with this assignment comes."""
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            if what in self.socket.recv(4_096).decode().split("\n"):
                return


@pytest.fixture(params=["{}/notify"])
def supervisor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Supervisor]:
    one = Supervisor(request.param.format(tmp_path))
    monkeypatch.setenv("NOTIFY_SOCKET", one.address)
    with one.socket:
        yield one


@pytest.mark.parametrize("supervisor", ["{}/notify", "@{}/abstract"], indirect=True)
def test_a_supervisor_hears_that_a_program_is_ready_and_that_it_ends(supervisor: Supervisor) -> None:
    notify_ready("node q6, at 127.0.0.1:7601")
    notify_stopping()
    assert supervisor.heard() == ["READY=1\nSTATUS=node q6, at 127.0.0.1:7601", "STOPPING=1"]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/nowhere/at/all", "@nobody listens here"])
def test_no_program_fails_for_want_of_a_listener(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify_ready("alone")
    notify_stopping()


async def test_a_supervisor_that_does_not_listen_keeps_nobody_waiting(
    supervisor: Supervisor, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    with trio.move_on_after(500):
        await show_life()
    assert len(supervisor.heard()) < 2_000, "its queue was full, and the program went on"


async def test_a_program_shows_life_several_times_within_the_time_that_the_supervisor_allows(
    supervisor: Supervisor, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "7000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with trio.move_on_after(6.9):
        await show_life()
    assert supervisor.heard() == ["WATCHDOG=1"] * 7


async def test_a_program_with_thousands_of_steps_to_do_shows_life_between_them(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    turns: list[float] = []

    async def step() -> None:
        turns.append(trio.current_time())
        while trio.current_time() < turns[-1] + 0.01:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(show_life)
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as busy:
            for _ in range(100):
                busy.start_soon(step)  # all of them in one turn: nobody else has his meanwhile
        assert len(supervisor.heard()) >= 10
        nursery.cancel_scope.cancel()


def test_a_step_that_is_known_to_be_long_is_announced_and_the_usual_time_counts_afterwards(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "7000000")
    with patience(60):
        assert supervisor.heard() == ["WATCHDOG_USEC=60000000"]
    assert supervisor.heard() == ["WATCHDOG_USEC=7000000\nWATCHDOG=1"]
    with patience(7):
        pass
    monkeypatch.delenv("WATCHDOG_USEC")
    with patience(60):
        pass
    assert supervisor.heard() == [], "there was no need"


@pytest.mark.parametrize(
    ("microseconds", "pid"),
    [(None, None), ("", None), ("5000000", str(os.getppid())), ("5000000", "")],
)
async def test_a_program_from_which_no_sign_of_life_is_expected_gives_none(
    microseconds: str | None, pid: str | None, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_s() is None
    await show_life()
    assert supervisor.heard() == []


@pytest.mark.parametrize("microseconds", ["soon", "0", "-1", "5e6", "٥", "9" * 5_000])
def test_a_deadline_that_makes_no_sense_is_an_error_with_the_next_step(
    microseconds: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    with pytest.raises(UsageError, match="microseconds"):
        watchdog_s()
    assert run_program(trio.sleep_forever) == 2
    assert "WATCHDOG_USEC" in capsys.readouterr().err


@asynccontextmanager
async def program(supervisor: Supervisor, *words: str) -> AsyncIterator[trio.Process]:
    """A process from which signs of life are expected, once it has said that it is ready."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", PROGRAM, *words],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "WATCHDOG_USEC": str(round(WATCHDOG_S * 1_000_000))},
        cwd=Path(__file__).parents[2],
    )
    try:
        with trio.fail_after(READY_S):
            await supervisor.hears("READY=1")
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.slow  # a process, and seconds of its life
async def test_a_program_shows_life_until_its_event_loop_stands_still(supervisor: Supervisor) -> None:
    async with program(supervisor, "lives", "0") as process:
        for _ in range(3):
            with trio.fail_after(READY_S):
                await supervisor.hears("WATCHDOG=1")
        process.terminate()
        assert await process.wait() == 0
    async with program(supervisor, "hangs") as process:
        with trio.move_on_after(WATCHDOG_S) as passed:
            await supervisor.hears("WATCHDOG=1")
        assert passed.cancelled_caught
        assert process.poll() is None, "it is there all the same"


@pytest.mark.slow  # a process, and seconds of its life
async def test_a_program_that_is_told_to_end_says_so_and_shows_life_until_it_has_cleaned_up(
    supervisor: Supervisor,
) -> None:
    async with program(supervisor, "lives", str(WATCHDOG_S)) as process:
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(READY_S):
            await supervisor.hears("STOPPING=1")
            await supervisor.hears("WATCHDOG=1")
            assert await process.wait() == 0
