"""What the programs show in their help is what they take."""

from __future__ import annotations

import functools
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App
from rich.console import Console

import p2pdist.agent.main
import p2pdist.cli.main
import p2pdist.seed.main
import p2pdist.server.main
import p2pdist.sign.main
from p2pdist import errors
from p2pdist.sign.main import options_last
from p2pdist.sign.packages import read_manifest

MODULES: dict[str, Any] = {
    "p2pdist": p2pdist.cli.main,
    "p2pdist-agent": p2pdist.agent.main,
    "p2pdist-seed": p2pdist.seed.main,
    "p2pdist-server": p2pdist.server.main,
    "p2pdist-sign": p2pdist.sign.main,
}
APPS: dict[str, App] = {
    program: module.PROGRAM.command_line() if hasattr(module, "PROGRAM") else module.app
    for program, module in MODULES.items()
}
SHORTEST = {
    "p2pdist": ["status"],
    "p2pdist-agent": ["enrol", "--bundle", "fleet.enrolment"],
    "p2pdist-seed": ["enrol", "--bundle", "fleet.enrolment"],
    "p2pdist-server": ["run", "--config", "server.toml"],
    "p2pdist-sign": ["status"],
}
"""A call of each program."""


def commands(app: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of a program, and the program itself."""
    yield path
    for name in app:
        if not name.startswith("-"):
            yield from commands(app[name], (*path, name))


@functools.cache
def shown(program: str, path: tuple[str, ...]) -> str:
    """The help of a command, as it is shown on a terminal of 80 columns."""
    written = io.StringIO()
    APPS[program].help_print(list(path), console=Console(file=written, width=80))
    return written.getvalue()


def blocks(text: str) -> list[list[str]]:
    """The indented blocks of a help text."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith(" ") and line.strip():
            found[-1].append(line.rstrip())
        elif found[-1]:
            found.append([])
    return [block for block in found if block]


def examples(text: str) -> Iterator[list[str]]:
    """The calls that a help text shows, each as its words without the comment."""
    for block in blocks(text):
        if block[0].split()[0] in APPS:
            for line in "\n".join(block).replace("\\\n", " ").splitlines():
                yield shlex.split(line, comments=True)


HELPS = [(program, path) for program, app in APPS.items() for path in commands(app)]


@pytest.mark.parametrize(("program", "path"), HELPS, ids=[" ".join((p, *path)) for p, path in HELPS])
def test_every_example_in_the_help_is_one_that_the_program_takes(program: str, path: tuple[str, ...]) -> None:
    for name, *words in examples(shown(program, path)):
        assert name in APPS, f"a line is broken in two, or is no call: {name} {words}"
        words = options_last(words) if name == "p2pdist-sign" else words
        APPS[name].parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.parametrize(("program", "path"), HELPS, ids=[" ".join((p, *path)) for p, path in HELPS])
def test_a_default_that_is_nothing_is_not_shown(program: str, path: tuple[str, ...]) -> None:
    text = " ".join(shown(program, path).replace("│", " ").split())
    for nothing in ("[default: None]", "[default: ]", '[default: ""]', "[default: ()]", "[default: False]"):
        assert nothing not in text


@pytest.mark.parametrize("program", APPS)
def test_every_exit_code_that_a_program_has_is_in_its_help(program: str) -> None:
    listed = shown(program, ()).partition("Exit codes:")[2]
    families = {error.exit_code for error in vars(errors).values() if isinstance(error, type)}
    own = {6} if program == "p2pdist" else set()  # a deployment that ended without success
    assert set(map(int, re.findall(r"[0-9]+", listed))) == {0, 1, 130} | families | own


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # as a program is
@pytest.mark.parametrize("program", APPS)
def test_a_program_that_is_interrupted_says_so_with_its_exit_code(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cyclopts.core._run_maybe_async_command", interrupted)
    monkeypatch.setattr(sys, "argv", [program, *SHORTEST[program]])
    with pytest.raises(SystemExit) as ended:
        MODULES[program].main()
    assert ended.value.code == 130


def test_every_command_of_the_signing_tool_shows_an_example() -> None:
    without = {("key",), ("channel",), ("revoke",), ("key", "public"), ("key", "list"), ("key", "passphrase")}
    bare = {path for _, path in HELPS[-len(list(commands(APPS["p2pdist-sign"]))) :]}
    assert {path for path in bare if not list(examples(shown("p2pdist-sign", path)))} <= without


def test_the_manifest_in_the_help_is_one_that_is_taken(tmp_path: Path) -> None:
    text = shown("p2pdist-sign", ("add",))
    lines = text[text.index(" [[release]]") : text.index("╭")].splitlines()
    path = tmp_path / "releases.toml"
    path.write_text("\n".join(line.strip() for line in lines))
    assert [release.product for release in read_manifest(path)] == ["app", "motd"]
