"""Programs with a deadline, their output, and what remains of them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.install.processes import ProcessResult, environment_of, open_witness, run_process, wait_witness

pytestmark = pytest.mark.slow  # processes that take their time


async def run(tmp_path: Path, *arguments: str, timeout_s: float = 20.0) -> ProcessResult:
    return await run_process(
        arguments,
        timeout_s=timeout_s,
        cwd=tmp_path,
        environment=environment_of({"EXTRA": "yes"}),
        witness=tmp_path / "alive",
    )


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z"


async def wait_gone(pid: int) -> None:
    with trio.fail_after(10):
        while not gone(pid):
            await trio.sleep(0.02)  # only the kernel knows, and it does not say


async def test_exit_code_and_both_outputs_come_back_in_order(tmp_path: Path) -> None:
    result = await run(tmp_path, "sh", "-c", "echo one; echo two >&2; echo three; exit 7")
    assert result == ProcessResult(exit_code=7, output=b"one\ntwo\nthree\n", problem="")


async def test_what_a_program_makes_is_readable_for_all_whatever_our_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        result = await run(tmp_path, "sh", "-c", "umask")
    finally:
        os.umask(before)
    assert result.output == b"0022\n"


async def test_only_the_end_of_a_long_output_is_kept(tmp_path: Path) -> None:
    result = await run(tmp_path, sys.executable, "-c", "print('x' * 300_000 + 'the end', end='')")
    assert len(result.output) == limits.OUTPUT_BYTES_MAX
    assert result.output.endswith(b"the end")


async def test_no_shell_is_involved_and_input_is_empty(tmp_path: Path) -> None:
    result = await run(tmp_path, "echo", "$(touch evil)", "; touch evil", "a b")
    assert result.output == b"$(touch evil) ; touch evil a b\n"
    assert not (tmp_path / "evil").exists()
    assert (await run(tmp_path, "cat")).output == b""


async def test_a_relative_program_is_found_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "check").write_text("#!/bin/sh\npwd\n")
    (tmp_path / "check").chmod(0o755)
    result = await run(tmp_path, "./check")
    assert result.output.decode().strip() == str(tmp_path.resolve())


def test_a_program_finds_the_system_s_directories_whatever_our_own_path_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/opt/own:/usr/bin")
    assert environment_of({})["PATH"].startswith("/opt/own:/usr/bin:/usr/local/sbin:")
    assert environment_of({})["PATH"].split(":").count("/usr/bin") == 1
    monkeypatch.delenv("PATH")
    assert environment_of({})["PATH"].endswith(":/sbin:/bin")


async def test_our_own_configuration_does_not_reach_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P2PDIST_AGENT_TOKEN", "secret")
    result = await run(tmp_path, "env")
    assert b"EXTRA=yes" in result.output
    assert b"secret" not in result.output


@pytest.mark.parametrize("program", ["no-such-program", "./missing", "/dev/null", "nul\0byte"])
async def test_a_program_that_cannot_be_started_is_a_result(tmp_path: Path, program: str) -> None:
    result = await run(tmp_path, program)
    assert result.exit_code is None
    assert result.problem.startswith("could not be started")


async def overtime(tmp_path: Path, clock: MockClock, text: str) -> tuple[str, ProcessResult]:
    """Run a shell until its time is over, once it has written to ``ready``; return that, and the result."""
    os.mkfifo(tmp_path / "ready")
    results: list[ProcessResult] = []

    async def keep() -> None:
        results.append(await run(tmp_path, "sh", "-c", text, timeout_s=900))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep)
        ready = await trio.Path(tmp_path / "ready").read_text()
        clock.autojump_threshold = 0.2
    return ready, results[0]


async def test_a_program_that_takes_too_long_ends_with_everything_that_it_started(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    child, result = await overtime(
        tmp_path, mock_clock, "echo begun; sleep 1000 & echo $! >ready; sleep 1000"
    )
    assert result.problem == "did not finish within 900 s and was ended"
    assert result.output == b"begun\n"
    await wait_gone(int(child))


async def test_a_program_that_ignores_the_polite_request_is_ended(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    text = "trap '' TERM; echo >ready; while :; do sleep 0.1; done"
    _, result = await overtime(tmp_path, mock_clock, text)
    assert result.exit_code == -signal.SIGKILL


async def test_cancellation_ends_the_whole_group_before_it_returns(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ready")
    text = f"sleep 1000 & echo $! $$ > {tmp_path}/ready; wait"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, tmp_path, "sh", "-c", text)
        pids = (await trio.Path(tmp_path / "ready").read_text()).split()
        nursery.cancel_scope.cancel()
    for pid in pids:
        await wait_gone(int(pid))


async def test_a_signal_is_told(tmp_path: Path) -> None:
    result = await run(tmp_path, "sh", "-c", "kill -SEGV $$")
    assert (result.exit_code, result.problem) == (-11, "was ended by signal 11")


async def test_a_daemon_that_keeps_the_output_open_does_not_hold_us_up(tmp_path: Path) -> None:
    with trio.fail_after(10):
        result = await run(tmp_path, "sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/daemon; echo started")
    assert (result.exit_code, result.output) == (0, b"started\n")
    os.kill(int((tmp_path / "daemon").read_text()), signal.SIGKILL)


async def test_a_witness_tells_when_the_last_process_of_an_earlier_run_is_gone(tmp_path: Path) -> None:
    await wait_witness(tmp_path / "alive", timeout_s=0)  # never made
    held = open_witness(tmp_path / "alive")
    with pytest.raises(Unavailable, match="has not ended"):
        await wait_witness(tmp_path / "alive", timeout_s=0.05)
    done = trio.Event()

    async def wait() -> None:
        await wait_witness(tmp_path / "alive", timeout_s=20)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        os.write(held, b"noise")
        await wait_all_tasks_blocked()
        assert not done.is_set()
        os.close(held)
        with trio.fail_after(10):
            await done.wait()
    await wait_witness(tmp_path / "alive", timeout_s=0.05)


async def test_programs_hold_the_witness_as_long_as_they_live(tmp_path: Path) -> None:
    result = await run(tmp_path, "sh", "-c", f"sleep 1000 >/dev/null 2>&1 & echo $! > {tmp_path}/daemon")
    assert result.exit_code == 0
    with pytest.raises(Unavailable):
        await wait_witness(tmp_path / "alive", timeout_s=0.05)
    os.kill(int((tmp_path / "daemon").read_text()), signal.SIGKILL)
    with trio.fail_after(10):
        await wait_witness(tmp_path / "alive", timeout_s=20)
