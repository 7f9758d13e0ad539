"""Enrolment by files: from the machine to the operator and back, through both command lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pdist.node.enrolling import enrol
from p2pdist.node.home import Home
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.wire import api as wire

OpenShell = Callable[..., Any]


class Machine:
    """A machine that may dial nobody, with the files that were brought to it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        directory.mkdir()
        self.data = directory / "data"
        self.bundle = directory / "bundle"
        self.token = directory / "token"
        self.request = directory / "request"
        self.answer = directory / "answer"
        self._capsys = capsys

    async def enrol(self, *, code: int = 0, **files: Path) -> str:
        """Enrol as its administrator would; return what is said."""
        self._capsys.readouterr()
        found = await trio.to_thread.run_sync(
            lambda: enrol(bundle=self.bundle, data=self.data, name="gateway", machine=str(self.data), **files)
        )
        out, err = self._capsys.readouterr()
        assert found == code, (out, err)
        return out + err


async def equip(shell: Any, machine: Machine) -> None:
    await shell("enrolment", "--to", str(machine.bundle))
    await shell("group", "add", "/points", code=0)
    await shell("token", "add", "/points", "--to", str(machine.token))


async def test_a_machine_that_may_dial_nobody_is_enrolled_by_two_files(
    open_shell: OpenShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(tmp_path / "machine", capsys)
    async with open_shell() as shell:
        await equip(shell, machine)
        said = await machine.enrol(token_file=machine.token, request=machine.request)
        assert "p2pdist enrolment answer request --to answer" in said
        assert machine.token.read_bytes().strip() not in machine.request.read_bytes()
        await shell("enrolment", "answer", str(machine.request), "--to", str(machine.answer))
        assert "in the group /points" in await machine.enrol(answer=machine.answer)
        assert {machine.request.stat().st_mode & 0o777, machine.answer.stat().st_mode & 0o777} == {0o600}
        node = Home.open(machine.data).node
        listed = await shell.json(wire.DeviceList, "device", "list")
        assert [(d.node, d.name, d.group) for d in listed.devices] == [(node, "gateway", "/points")]
        assert "device.enrol" in await shell("audit")


async def test_an_answer_is_good_for_the_machine_that_asked_and_for_no_other(
    open_shell: OpenShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine, other = Machine(tmp_path / "one", capsys), Machine(tmp_path / "other", capsys)
    async with open_shell() as shell:
        await equip(shell, machine)
        await machine.enrol(token_file=machine.token, request=machine.request)
        await shell("enrolment", "answer", str(machine.request), "--to", str(machine.answer))
        await shell("enrolment", "--to", str(other.bundle))
        assert "make a request first" in await other.enrol(code=2, answer=machine.answer)
        await other.enrol(token_file=machine.token, request=other.request)
        assert "the answer is for" in await other.enrol(code=2, answer=machine.answer)


async def test_a_token_that_is_used_up_enrols_nobody_by_file(
    open_shell: OpenShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(tmp_path / "machine", capsys)
    async with open_shell() as shell:
        await equip(shell, machine)
        await machine.enrol(token_file=machine.token, request=machine.request)
        await shell("enrolment", "answer", str(machine.request), "--to", str(machine.answer))
        again = str(tmp_path / "again")
        await shell("enrolment", "answer", str(machine.request), "--to", again, code=4)
        assert "has been used once" in shell.stderr


async def test_an_enrolment_needs_a_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], open_shell: OpenShell
) -> None:
    machine = Machine(tmp_path / "machine", capsys)
    async with open_shell() as shell:
        await shell("enrolment", "--to", str(machine.bundle))
        assert "needs a token" in await machine.enrol(code=2, request=machine.request)


async def test_a_bundle_names_the_gateway_through_which_machines_enrol(
    open_shell: OpenShell, tmp_path: Path
) -> None:
    async with open_shell() as shell:
        path = tmp_path / "bundle"
        await shell(
            "enrolment", "--to", str(path), "--address", "192.0.2.1:7601", "--address", "[2001:db8::1]:7601"
        )
        assert EnrolmentBundle.load(path).addresses == ("192.0.2.1:7601", "[2001:db8::1]:7601")
        await shell("enrolment", "--to", str(path), "--address", "nowhere", code=2)
