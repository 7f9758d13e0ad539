"""A node's runs: begun, ended, reported once, also after a restart."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import msgspec
import pytest
import trio
from trio.testing import MockClock

from p2pdist import limits
from p2pdist.duties.journal import Journal
from p2pdist.duties.run import Ended, RunPort
from p2pdist.duties.runner import Perform, Runner, Said
from p2pdist.errors import UsageError
from p2pdist.trust.catalog import Duty
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.secrets import seal_secrets
from p2pdist.wire import codec
from p2pdist.wire.discovery import Sighting
from p2pdist.wire.polling import Poll
from p2pdist.wire.questions import SecretsRequest, TaskSecrets
from p2pdist.wire.tasks import Assignment, TaskItem, TaskItems, TaskProgress, TaskResult, TaskSightings
from p2pdist.wire.work import AnyWork, encode_work

WORK = encode_work(Poll(ranges=["10.0.0.1"]))


def assignment(task: str = "a", run: int = 1, **fields: object) -> Assignment:
    usual = {"not_after": int(time.time()) + 600, "work": WORK}
    return Assignment(task=task, run=run, **{**usual, **fields})  # type: ignore[arg-type]


def item(subject: str) -> TaskItem:
    return TaskItem(subject=subject, state="done")


async def at_once(work: AnyWork, port: RunPort) -> Ended:
    return Ended(figures={"asked": 1})


class Server:
    """The admin server as a runner sees it: what it was told, and what it confirms."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.reached = True
        self.grants = True
        self.key = IdentityKey.generate()
        self._news = trio.Event()

    async def say(self, message: Said) -> bool:
        if self.reached:
            self.said.append(message)
            self._news.set()
        return self.reached

    async def objection(self, duty: Duty) -> str:
        return "" if self.grants else f"the duty {duty} is missing"

    @property
    def results(self) -> list[TaskResult]:
        return [each for each in self.said if isinstance(each, TaskResult)]

    @property
    def items(self) -> list[TaskItems]:
        return [each for each in self.said if isinstance(each, TaskItems)]

    async def result(self) -> TaskResult:
        """The last result, once there is one."""
        while not self.results:
            self._news = trio.Event()
            await self._news.wait()
        return self.results[-1]

    async def room(self) -> None:
        """There is always some."""

    async def until_asked(self, times: int) -> None:
        """Wait until secrets were asked for so often."""
        while sum(isinstance(each, SecretsRequest) for each in self.said) < times:
            self._news = trio.Event()
            await self._news.wait()

    async def until(self, count: int) -> None:
        """Wait until so many things were said."""
        while len(self.said) < count:
            self._news = trio.Event()
            await self._news.wait()


@asynccontextmanager
async def running(server: Server, path: Path, perform: Perform = at_once) -> AsyncIterator[Runner]:
    """A runner on a directory; leaving the block is the end of its process."""
    runner = Runner(server, Journal(path / "tasks"), perform)
    with trio.fail_after(10_000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.run)
            yield runner
            nursery.cancel_scope.cancel()


async def test_what_is_assigned_is_done_and_its_result_is_said(tmp_path: Path) -> None:
    server = Server()
    async with running(server, tmp_path) as runner:
        runner.assign([assignment()])
        result = await server.result()
    assert (result.task, result.run, result.outcome, result.figures) == ("a", 1, "done", {"asked": 1})


async def test_a_run_is_not_done_again_while_it_is_assigned_not_even_after_a_restart(tmp_path: Path) -> None:
    server = Server()
    async with running(server, tmp_path) as runner:
        runner.assign([assignment()])
        runner.confirmed([(await server.result()).id])
        await trio.testing.wait_all_tasks_blocked()
    async with running(server, tmp_path) as runner:
        runner.assign([assignment(), assignment("b")])
        await server.until(2)
    assert [each.task for each in server.results] == ["a", "b"]


async def test_a_result_that_is_not_confirmed_is_said_again_after_a_restart_and_over_the_next_link(
    tmp_path: Path,
) -> None:
    server = Server()
    async with running(server, tmp_path) as runner:
        runner.assign([assignment()])
        await server.result()
    async with running(server, tmp_path) as runner:
        await server.until(2)
        runner.linked()
        await server.until(3)
        runner.confirmed([server.results[0].id])
        await trio.testing.wait_all_tasks_blocked()
        assert not runner.busy
    assert len({each.id for each in server.results}) == 1


async def test_items_come_before_the_result_of_their_run(tmp_path: Path) -> None:
    async def find(work: AnyWork, port: RunPort) -> Ended:
        for number in range(300):
            await port.item(item(f"10.0.0.{number}"))
        return Ended()

    server = Server()
    async with running(server, tmp_path, find) as runner:
        runner.assign([assignment()])
        await server.until(3)
        await trio.testing.wait_all_tasks_blocked()
        assert not server.results
        assert [len(each.items) for each in server.items] == [128, 128, 44]
        runner.confirmed([each.id for each in server.items])
        assert (await server.result()).outcome == "done"


async def test_what_was_seen_comes_in_messages_that_fit_and_before_the_result(tmp_path: Path) -> None:
    sightings = [
        Sighting(method="mdns", names=[f"{place}-{number}".ljust(250, "x") for place in range(16)])
        for number in range(300)
    ]

    async def look(work: AnyWork, port: RunPort) -> Ended:
        for sighting in sightings:
            await port.saw(sighting)
        return Ended()

    server = Server()
    async with running(server, tmp_path, look) as runner:
        runner.assign([assignment()])
        while not server.results:
            await server.until(len(server.said) + 1)
            runner.confirmed([each.id for each in server.said if isinstance(each, TaskSightings)])
    seen = [each for each in server.said if isinstance(each, TaskSightings)]
    assert [sighting for each in seen for sighting in each.sightings] == sightings
    assert all(len(codec.encode(each)) < limits.ENVELOPE_BYTES_MAX / 2 for each in seen)


async def test_while_too_much_is_not_confirmed_a_run_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TASK_UNCONFIRMED_MAX", 2)
    monkeypatch.setattr(limits, "TASK_ITEMS_AT_ONCE", 1)
    reached: list[int] = []

    async def find(work: AnyWork, port: RunPort) -> Ended:
        for number in range(10):
            await port.item(item(str(number)))
            reached.append(number)
        return Ended()

    server = Server()
    async with running(server, tmp_path, find) as runner:
        runner.assign([assignment()])
        await server.until(2)
        await trio.testing.wait_all_tasks_blocked()
        assert reached == [0, 1]
        while not server.results:
            runner.confirmed([each.id for each in server.items])
            await trio.testing.wait_all_tasks_blocked()
        assert reached == list(range(10))
        assert [each.items[0].subject for each in server.items] == [str(number) for number in range(10)]


async def test_what_is_not_assigned_any_more_ends_and_a_newer_run_begins_after_it(tmp_path: Path) -> None:
    async def hang(work: AnyWork, port: RunPort) -> Ended:
        port.progress(f"run {port.run}")
        await trio.sleep_forever()
        raise AssertionError

    server = Server()
    async with running(server, tmp_path, hang) as runner:
        runner.assign([assignment()])
        await server.until(1)
        runner.assign([assignment(run=2)])
        assert ((await server.result()).run, server.results[0].outcome) == (1, "cancelled")
        await trio.testing.wait_all_tasks_blocked()
        runner.assign([])
        while len(server.results) < 2:
            await trio.testing.wait_all_tasks_blocked()
        assert (server.results[1].run, server.results[1].outcome) == (2, "cancelled")


async def test_a_run_that_was_under_way_when_the_program_ended_is_begun_again(tmp_path: Path) -> None:
    begun = trio.Event()

    async def hang(work: AnyWork, port: RunPort) -> Ended:
        begun.set()
        await trio.sleep_forever()
        raise AssertionError

    server = Server()
    async with running(server, tmp_path, hang) as runner:
        runner.assign([assignment()])
        await begun.wait()
    async with running(server, tmp_path) as runner:
        runner.assign([assignment()])
        assert (await server.result()).outcome == "done"
    assert len(server.results) == 1


async def test_a_run_that_ends_the_program_each_time_fails_in_the_end(tmp_path: Path) -> None:
    begun = trio.Event()

    async def hang(work: AnyWork, port: RunPort) -> Ended:
        begun.set()
        await trio.sleep_forever()
        raise AssertionError

    server = Server()
    for _ in range(limits.TASK_BEGUN_MAX):
        begun = trio.Event()
        async with running(server, tmp_path, hang) as runner:
            runner.assign([assignment()])
            await begun.wait()
    async with running(server, tmp_path, hang) as runner:
        runner.assign([assignment()])
        result = await server.result()
    assert (result.outcome, "each time" in result.reason) == ("failed", True)


async def test_without_the_duty_it_is_refused_with_the_reason(tmp_path: Path) -> None:
    server = Server()
    server.grants = False
    async with running(server, tmp_path) as runner:
        runner.assign([assignment()])
        result = await server.result()
    assert (result.outcome, result.reason) == ("refused", "the duty discovery is missing")


async def test_work_of_a_kind_that_is_not_known_here_is_refused_and_other_work_is_done(
    tmp_path: Path,
) -> None:
    unknown = assignment("new", work=msgpack.packb({"work": "of-next-year"}))
    server = Server()
    async with running(server, tmp_path) as runner:
        runner.assign([unknown, assignment("old")])
        await server.until(2)
    assert {each.task: each.outcome for each in server.results} == {"new": "refused", "old": "done"}


async def test_what_comes_too_late_is_refused(tmp_path: Path) -> None:
    server = Server()
    async with running(server, tmp_path) as runner:
        runner.assign([assignment(not_after=1_000)])
        result = await server.result()
    assert (result.outcome, "too late" in result.reason) == ("refused", True)


async def test_what_was_begun_in_time_is_begun_again_however_late_it_is(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "tasks")
    journal.begin(assignment(not_after=1_000))
    journal.save()
    server = Server()
    async with running(server, tmp_path) as runner:
        runner.assign([assignment(not_after=1_000)])
        assert (await server.result()).outcome == "done"


async def test_that_a_run_has_begun_is_said_as_soon_as_there_is_a_way(
    tmp_path: Path,
) -> None:
    async def hang(work: AnyWork, port: RunPort) -> Ended:
        await trio.sleep_forever()
        raise AssertionError

    server = Server()
    server.reached = False
    async with running(server, tmp_path, hang) as runner:
        runner.assign([assignment()])
        await trio.testing.wait_all_tasks_blocked(0.01)
        server.reached = True
        await server.until(1)
    (said,) = server.said
    assert isinstance(said, TaskProgress)
    assert said.step == "begun"


async def test_an_error_of_the_work_is_its_failure_also_out_of_a_nursery(tmp_path: Path) -> None:
    async def fail(work: AnyWork, port: RunPort) -> Ended:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raise_usage)
        raise AssertionError

    async def raise_usage() -> None:
        raise UsageError("10.0.0.0/99 is not a range", hint="write another one")

    server = Server()
    async with running(server, tmp_path, fail) as runner:
        runner.assign([assignment()])
        result = await server.result()
    assert (result.outcome, result.reason) == ("failed", "10.0.0.0/99 is not a range; write another one")


async def test_progress_is_said_at_most_once_a_second_and_the_newest_counts(
    autojump_clock: MockClock,
) -> None:
    said: list[int] = []

    async def say(message: TaskProgress) -> bool:
        said.append(message.done)
        return True

    async def room() -> None:
        return

    port = RunPort(assignment(), say=say, room=room, add=lambda items: None, key=IdentityKey.generate())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(port.tell)
        for number in range(100):
            port.progress("counting", done=number, total=100)
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert said[0] == 0
    assert 9 <= len(said) <= 11
    assert said == sorted(said)


async def test_a_run_ends_without_the_admin_server_and_is_reported_when_it_is_back(tmp_path: Path) -> None:
    server = Server()
    server.reached = False
    async with running(server, tmp_path) as runner:
        runner.assign([assignment()])
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert runner.busy
        server.reached = True
        runner.linked()
        assert (await server.result()).outcome == "done"


async def test_a_damaged_journal_costs_work_and_nothing_else(tmp_path: Path) -> None:
    server = Server()
    (tmp_path / "tasks").write_bytes(b"\xc1 damaged")
    async with running(server, tmp_path) as runner:
        runner.assign([assignment()])
        assert (await server.result()).outcome == "done"


def test_what_a_journal_writes_it_reads(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "tasks")
    journal.begin(assignment())
    journal.begin(assignment("b", run=7))
    items = TaskItems(id="1", task="a", run=1, items=[item("x")])
    result = TaskResult(id="2", task="a", run=1, outcome="done", finished=1)
    journal.end([items], result)
    journal.save()
    again = Journal(tmp_path / "tasks")
    assert again.ended == {"a": 1}
    assert list(again.unconfirmed.values()) == [items, result]
    assert again.begin(assignment("b", run=7)) == 2


class Login(msgspec.Struct, frozen=True, kw_only=True):
    password: str


class Asking:
    """Work that needs a password."""

    def __init__(self) -> None:
        self.got: list[Login] = []

    async def __call__(self, work: AnyWork, port: RunPort) -> Ended:
        self.got.append(await port.secrets(Login))
        return Ended()


def boxed(server: Server, work: bytes = WORK) -> bytes:
    later = int(time.time()) + 600
    return seal_secrets(Login(password="hunter2"), work=work, public=server.key.public, expires=later)


async def test_a_run_asks_for_its_secrets_and_gets_them(tmp_path: Path) -> None:
    server, asking = Server(), Asking()
    async with running(server, tmp_path, asking) as runner:
        runner.assign([assignment()])
        await server.until_asked(1)
        runner.answered(TaskSecrets(task="a", run=1, box=boxed(server)))
        assert (await server.result()).outcome == "done"
    assert asking.got == [Login(password="hunter2")]
    assert not any(b"hunter2" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


async def test_a_question_that_was_lost_is_asked_again(autojump_clock: MockClock) -> None:
    server = Server()

    async def say(message: TaskProgress | SecretsRequest) -> bool:
        await server.say(message)
        if len(server.said) == 3:
            port.answered(TaskSecrets(task="a", run=1, box=boxed(server)))
        return True

    port = RunPort(assignment(), say=say, room=server.room, add=lambda items: None, key=server.key)
    assert await port.secrets(Login) == Login(password="hunter2")
    assert server.said == [SecretsRequest(task="a", run=1)] * 3


async def test_a_run_whose_secrets_are_gone_says_how_to_give_them_again(tmp_path: Path) -> None:
    server = Server()
    async with running(server, tmp_path, Asking()) as runner:
        runner.assign([assignment()])
        await server.until_asked(1)
        runner.answered(TaskSecrets(task="a", run=1))
        result = await server.result()
    assert result.outcome == "failed"
    assert "are gone" in result.reason
    assert "p2pdist task run a --secrets FILE" in result.reason


async def test_secrets_for_other_work_are_refused(tmp_path: Path) -> None:
    server = Server()
    async with running(server, tmp_path, Asking()) as runner:
        runner.assign([assignment()])
        await server.until_asked(1)
        runner.answered(TaskSecrets(task="a", run=1, box=boxed(server, work=b"other")))
        result = await server.result()
    assert (result.outcome, "other work" in result.reason) == ("failed", True)


async def test_an_answer_for_another_run_is_not_taken(tmp_path: Path) -> None:
    server, asking = Server(), Asking()
    async with running(server, tmp_path, asking) as runner:
        runner.assign([assignment(run=2)])
        await server.until_asked(1)
        runner.answered(TaskSecrets(task="a", run=1))
        runner.answered(TaskSecrets(task="b", run=2))
        runner.answered(TaskSecrets(task="a", run=2, box=boxed(server)))
        assert (await server.result()).outcome == "done"
