"""Tasks of nodes at the operator's prompt; the admin server does them itself."""

from __future__ import annotations

import json

import pytest

from p2pdist.wire import api as wire

from .conftest import OpenShell

pytestmark = pytest.mark.slow  # a whole server


async def test_a_poll_by_the_server_itself_finds_who_answers_and_says_so(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        shown = await shell("discover", "127.0.0.1/32", "127.0.0.7", "--via", "server", "--wait")
        found = [line.split()[:3] for line in shown.splitlines() if line.startswith("127.")]
        assert found == [["127.0.0.1", "done", "echo"], ["127.0.0.7", "done", "echo"]]
        assert "2 answered" in shown and "2 asked" in shown
        (known,) = (await shell.json(wire.TaskList, "task", "list")).tasks
        assert (known.kind, known.states, known.nodes[0].name) == ("poll", {"done": 1}, "server")
        assert known.id in await shell("task", "list")


async def test_what_was_found_is_json_on_request(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        run = await shell.json(wire.TaskRun, "discover", "127.0.0.1", "--via", "server", "--wait")
        assert [(item.subject, item.state, item.step) for item in run.items] == [
            ("127.0.0.1", "done", "echo")
        ]
        assert run.nodes[0].figures == {"answered": 1, "asked": 1, "found": 1, "neighbours": 0}
        assert run.nodes[0].confirmed
        again = await shell.json(wire.TaskInfo, "task", "run", run.task)
        assert again.run == 2
        assert await shell.json(wire.TaskRun, "task", "show", run.task, "--run", "1") == run


async def test_a_stopped_run_ends_as_cancelled_and_is_no_success(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        made = await shell.json(wire.TaskInfo, "discover", "127.3.0.0/16", "--via", "server", "--per-s", "1")
        assert "1 cancelled" in await shell("task", "stop", made.id)
        shown = await shell("task", "show", made.id)
        assert "cancelled" in shown and "stopped by" in shown
        assert "removed" in await shell("task", "remove", made.id)
        await shell("task", "show", made.id, code=2)
        assert "p2pdist task list" in shell.stderr


async def test_what_cannot_be_polled_is_said_at_once(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        for arguments, said in (
            (("10.0.0.0/8",), "65536 addresses"),
            (("fd00::/64",), "IPv6"),
            (("10.0.0.0/33",), "not a range"),
            (("10.0.0.1", "--method", "guess"), "not a method"),
            (("10.0.0.1", "--every", "whenever"), "not a schedule"),
            (("10.0.0.1", "--every", "0 2 * * *", "--zone", "Europe/Nowhere"), "not a time zone"),
            (("10.0.0.1", "--every", "0 2 * * *", "--wait"), "has not begun yet"),
        ):
            await shell("discover", *arguments, "--via", "server", "--output", "json", code=2)
            assert said in json.loads(shell.stderr)["error"]
        await shell("discover", "10.0.0.1", "--via", "nobody", code=2)
        assert "no device" in shell.stderr


async def test_a_task_on_a_schedule_says_when_it_begins(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        made = await shell.json(
            wire.TaskInfo, "discover", "127.0.0.1", "--via", "server", "--every", "0 4 1 1 *"
        )
        assert made.run == 0
        assert made.next_at is not None
        assert "0 4 1 1 *" in await shell("task", "show", made.id)
        assert (await shell.json(wire.TaskInfo, "task", "run", made.id)).next_at == made.next_at


async def test_a_task_that_waits_for_something_says_for_what(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        poll = ("discover", "127.0.0.1", "--via", "server")
        first = await shell.json(wire.TaskInfo, *poll, "--every", "0 4 1 1 *")
        second = await shell.json(
            wire.TaskInfo, *poll, "--after", first.id, "--on-metadata", "--window", "12h", "--spread", "30m"
        )
        assert (second.window_s, second.spread_s) == (43_200, 1_800)
        waits = f"after {first.id}; on new metadata, spread over"
        assert waits in await shell("task", "show", second.id)
        await shell("task", "run", second.id)
        assert waits in await shell("task", "show", second.id)
        assert f"after {first.id}" in await shell("task", "list")
        await shell(*poll, "--after", first.id, "--wait", code=2)
        assert "has not begun yet" in shell.stderr
        await shell(*poll, "--window", "soon", code=2)
        assert "not a length of time" in shell.stderr
