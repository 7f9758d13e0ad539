"""``kill -9`` of a whole deployer, again and again, until its deployments have ended all the same."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pdist.install.archive import pack_tree
from p2pdist.trust.catalog import CommandRecipe, FileRecipe, Release, TreeRecipe
from p2pdist.wire.messages import Report

Node = Any
Ask = Any

APPEND = 'echo "$P2PDIST_PRODUCT" >> "$P2PDIST_ROOT/log"'


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Asks the program of killed.py."""
    program = Path(__file__).with_name("killed.py")
    process = subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def send(releases: list[Release], device: Path, artifacts: Path, kill_at: int = 0) -> dict[str, Any]:
        request = {
            "device": str(device),
            "artifacts": str(artifacts),
            "releases": msgspec.to_builtins(releases),
            "kill_at": kill_at,
        }
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    yield send
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


def releases_of(node: Node) -> tuple[list[Release], Path]:
    """One release of each kind that leaves a trace."""
    artifacts = node.base / "artifacts"
    artifacts.mkdir()
    source = node.base / "source"
    source.mkdir()
    for number in range(4):
        (source / f"part{number}").write_text("whole")
    packed = pack_tree(source, node.base / "tree")
    recipe = TreeRecipe(
        unpacked_bytes=packed.unpacked_bytes, entries=packed.entries, health_check=["cat", "part0"]
    )
    made = [
        ((node.base / "tree").read_bytes(), "tree", recipe),
        (b"a file", "file", FileRecipe(path="/etc/file", reload=["true"])),
        (b"a command", "command", CommandRecipe(arguments=["sh", "-c", APPEND])),
    ]
    releases = []
    for data, product, each in made:
        release = node.release(data, product=product, recipe=each)
        (artifacts / release.info_hash).write_bytes(data)
        releases.append(release)
    return releases, artifacts


def check(device: Path, releases: list[Release]) -> None:
    """Every deployment ended once, and the device is as the reports say."""
    reports: dict[str, list[Report]] = {}
    for path in (device / "server").iterdir():
        if not path.name.startswith("."):
            report = msgspec.json.decode(path.read_bytes(), type=Report)
            reports.setdefault(report.deployment, []).append(report)
    assert {name: len(each) for name, each in reports.items()} == {f"d-{r.product}-1": 1 for r in releases}
    assert reports["d-tree-1"][0].stage == "installed"
    assert {path.read_text() for path in (device / "root/opt/tree/current").iterdir()} == {"whole"}
    assert reports["d-file-1"][0].stage == "installed"
    assert (device / "root/etc/file").read_bytes() == b"a file"
    log = device / "root/log"
    ran = log.read_text().splitlines() if log.exists() else []
    command = reports["d-command-1"][0]
    if command.stage == "installed":
        assert ran == ["command"]
    else:
        assert command.reason == "the command was interrupted; not run again"
        assert ran in ([], ["command"])


@pytest.mark.parametrize("seed", [1, 2])
def test_a_device_that_is_killed_again_and_again_ends_every_deployment_once(
    ask: Ask, node: Node, seed: int
) -> None:
    releases, artifacts = releases_of(node)
    device = node.base / "device"
    rng = random.Random(seed)
    answers = [ask(releases, device, artifacts, kill_at=rng.randrange(2, 40)) for _ in range(6)]
    answers.append(ask(releases, device, artifacts))
    assert answers[0] == {"killed": True}
    assert "operations" in answers[-1]
    check(device, releases)


@pytest.mark.slow
def test_there_is_no_point_at_which_a_kill_of_the_deployer_does_harm(ask: Ask, node: Node) -> None:
    releases, artifacts = releases_of(node)
    count = ask(releases, node.base / "undisturbed", artifacts)["operations"]
    check(node.base / "undisturbed", releases)
    for point in range(1, count + 1, 3):
        device = node.base / f"at-{point}"
        ask(releases, device, artifacts, kill_at=point)
        assert "operations" in ask(releases, device, artifacts)
        check(device, releases)
