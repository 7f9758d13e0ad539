"""The command line of a node's programs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import p2pdist
from p2pdist.node.commandline import NodeProgram
from p2pdist.node.config import AgentConfig

pytestmark = pytest.mark.slow  # a process for each


def program(called: list[Path | None], code: int = 0) -> NodeProgram[AgentConfig]:
    """A program that only notes with which file it was run."""

    class Noting(NodeProgram[AgentConfig]):
        def run(self, *, config: Path | None = None) -> int:
            """Run it.

            Parameters
            ----------
            config
                The configuration file.
            """
            called.append(config)
            return code

    return Noting(name="p2pdist-node", purpose="A node.", config=AgentConfig, load=lambda: never)


async def never(config: AgentConfig) -> None:
    raise AssertionError


RUNS: list[tuple[list[str], Path | None]] = [
    (["run"], None),
    (["run", "--config", "node.toml"], Path("node.toml")),
    (["run", "--config", "/etc/a directory/node.toml"], Path("/etc/a directory/node.toml")),
    (["run", "--config=node.toml"], Path("node.toml")),
    (["run", "--config=-"], Path("-")),
]


@pytest.mark.parametrize(("words", "config"), RUNS)
def test_run_is_read_as_the_library_reads_it(
    words: list[str], config: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Path | None] = []
    monkeypatch.setattr(sys, "argv", ["p2pdist-node", *words])
    with pytest.raises(SystemExit, match=r"^0$"):
        program(called).main()
    with pytest.raises(SystemExit, match=r"^0$"):
        program(called).command_line()(words)
    assert called == [config, config]


@pytest.mark.parametrize("words", [["run"], ["run", "--config=node.toml"]])
def test_the_exit_code_is_that_of_the_node(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["p2pdist-node", *words])
    with pytest.raises(SystemExit, match=r"^71$"):
        program([], code=71).main()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--confg", "node.toml"], "Did you mean --config?"),
        (["run", "--config"], "requires an argument"),
        (["run", "--config", "--help"], "The configuration file."),
        (["run", "--help"], "The configuration file."),
        (["--help"], "A node."),
    ],
)
def test_help_and_mistakes_run_nothing(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[Path | None] = []
    monkeypatch.setattr(sys, "argv", ["p2pdist-node", *words])
    with pytest.raises(SystemExit):
        program(called).main()
    shown = capsys.readouterr()
    assert said in " ".join((shown.out + shown.err).split())
    assert called == []


def test_the_version_is_said_as_the_library_says_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["p2pdist-node", "--version"])
    with pytest.raises(SystemExit, match=r"^0$"):
        program([]).main()
    said = capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^0$"):
        program([]).command_line()(["--version"])
    assert said == capsys.readouterr().out == f"{p2pdist.__version__}\n"


def test_a_program_that_cannot_load_what_it_runs_does_not_say_its_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Callable[[AgentConfig], Awaitable[None]]:
        raise ImportError("libtorrent: wrong architecture")

    monkeypatch.setattr(sys, "argv", ["p2pdist-node", "--version"])
    with pytest.raises(ImportError, match="wrong architecture"):
        NodeProgram(name="p2pdist-node", purpose="A node.", config=AgentConfig, load=broken).main()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["agent", "seed"])
def test_a_node_that_runs_has_not_loaded_what_reads_command_lines(name: str, tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(f'[node]\ndata = "{tmp_path}"\n')
    code = (
        f"import sys; from p2pdist.{name}.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'cyclopts', 'rich'} & sys.modules.keys()))"
    )
    words = [sys.executable, "-c", code, "run", "--config", str(tmp_path / "node.toml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "enrol it first" in done.stderr, "it came as far as its directory"
    assert done.stdout == "[]\n"
