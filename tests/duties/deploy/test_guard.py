"""The guard: what it starts, when it goes back to the version before, and when it does not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from guarded import SLEEP, STAY, Guarded, until

from p2pdist import limits

pytestmark = pytest.mark.slow  # real processes, in several shells

HANG = f"trap '' TERM; while :; do {SLEEP} 0.05; done"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    guarded = Guarded(tmp_path)
    yield guarded
    guarded.end()


def test_it_runs_the_version_in_use_with_its_arguments_and_ends_with_its_exit_code(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, old="exit 4")
    assert guarded.start("run", "--config", "a file").wait(10) == 4
    assert guarded.starts() == ["old run --config a file"]


def test_what_it_runs_knows_its_version_and_is_the_one_to_give_signs_of_life(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, old='echo "$P2PDIST_GUARDED $WATCHDOG_PID" >>' + f"{tmp_path}/said")
    guarded.start().wait(10)
    assert (tmp_path / "said").read_text() == f"{guarded.old} \n"


def test_a_link_may_be_relative(guarded: Guarded) -> None:
    guarded.link.unlink()
    guarded.link.symlink_to("versions/0/p2pdist-agent")
    guarded.start()
    until(guarded.starts, "it runs")
    assert guarded.starts() == ["old"]


def test_what_a_killed_version_has_unpacked_is_removed_at_the_next_start(guarded: Guarded) -> None:
    left = guarded.root.parent / "scratch" / "_MEIabc"
    left.mkdir(parents=True)
    guarded.start()
    until(guarded.starts, "it runs")
    assert not left.exists()


def test_when_it_is_asked_to_end_it_passes_that_on_and_ends_well(guarded: Guarded) -> None:
    guarded.start()
    until(guarded.starts, "it runs")
    assert guarded.end() == 0
    assert guarded.starts() == ["old"]


def test_when_another_version_is_in_use_after_the_end_it_runs_that(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, old=f"while [ ! -e {tmp_path}/leave ]; do {SLEEP} 0.05; done")
    guarded.start()
    until(guarded.starts, "the old one runs")
    guarded.bring(STAY, trial=False)
    (tmp_path / "leave").touch()
    until(lambda: guarded.starts() == ["old", "new"], "the new one runs")
    assert guarded.end() == 0


@pytest.mark.parametrize(
    ("script", "how"),
    [("exit 3", "with exit code 3"), ("exit 0", "with exit code 0"), ("kill -9 $$", "by signal 9")],
)
def test_a_new_version_that_ends_at_once_makes_way_for_the_one_before(
    guarded: Guarded, script: str, how: str
) -> None:
    guarded.bring(script)
    guarded.start()
    until(lambda: guarded.starts()[-1:] == ["old"], "the old one runs")
    assert guarded.starts() == ["new"] * limits.TRIAL_STARTS_MAX + ["old"]
    failed = guarded.place.failed()
    assert failed is not None and not failed.slow
    assert failed.reason == f"it ended 3 times before the admin server heard of it, the last time {how}"
    assert guarded.link.readlink() == guarded.old


@pytest.mark.parametrize("script", [STAY, HANG], ids=["it ends when asked", "it does not end when asked"])
def test_a_new_version_that_is_not_heard_of_in_its_time_makes_way(guarded: Guarded, script: str) -> None:
    guarded.bring(script, seconds=1)
    guarded.start()
    until(lambda: guarded.starts() == ["new", "old"], "the old one runs")
    failed = guarded.place.failed()
    assert failed is not None and failed.slow
    assert failed.reason == "it ran for 1 s, and the admin server did not hear of it"


def test_one_that_is_heard_of_stays_and_when_it_ends_later_so_does_the_guard(
    guarded: Guarded, tmp_path: Path
) -> None:
    guarded.bring(f"trap 'exit 7' USR1; echo $$ >{tmp_path}/pid; {STAY}")
    process = guarded.start()
    until((tmp_path / "pid").exists, "it runs")
    assert guarded.place.confirm()
    assert not guarded.place.is_on_trial()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGUSR1)
    assert process.wait(10) == 7
    assert guarded.starts() == ["new"]


def test_one_that_is_killed_together_with_its_guard_has_ended(guarded: Guarded) -> None:
    guarded.bring(HANG)
    for number in range(1, limits.TRIAL_STARTS_MAX + 1):
        guarded.start()
        until(lambda number=number: len(guarded.starts()) == number, "it runs")
        guarded.kill_all()
    guarded.start()
    until(lambda: guarded.starts()[-1:] == ["old"], "the old one runs")
    assert guarded.starts() == ["new"] * 3 + ["old"]


def test_a_machine_that_lost_its_power_counts_as_no_end(guarded: Guarded) -> None:
    guarded.bring(STAY)
    (guarded.root / "trial.count").write_text("ended=2\nran=10\nboot=another\n")
    guarded.start()
    until(guarded.starts, "it runs")
    assert guarded.starts() == ["new"]
    assert (guarded.root / "trial.count").read_text().startswith("ended=2\n")


def test_an_end_that_was_asked_for_counts_as_none_and_the_time_goes_on_where_it_was(guarded: Guarded) -> None:
    guarded.bring(STAY)
    for number in range(1, limits.TRIAL_STARTS_MAX + 2):
        guarded.start()
        until(lambda number=number: len(guarded.starts()) == number, "it runs")
        assert guarded.end() == 0
    assert set(guarded.starts()) == {"new"}
    said = dict(line.split("=") for line in (guarded.root / "trial.count").read_text().splitlines())
    assert said["ended"] == "0" and said["boot"] == "" and int(said["ran"]) >= limits.TRIAL_STARTS_MAX


@pytest.mark.parametrize(
    "text", ["", "ended=x\nran=\nboot\n", "\0\0", "ended=99999999999999999999\n", "=\n= =\n"]
)
def test_a_count_that_is_damaged_begins_anew(guarded: Guarded, text: str) -> None:
    guarded.bring(STAY)
    (guarded.root / "trial.count").write_text(text)
    guarded.start()
    until(guarded.starts, "it runs")
    assert guarded.starts() == ["new"]


def test_a_guard_that_died_before_it_gave_up_gives_up_then(guarded: Guarded) -> None:
    guarded.bring(STAY)
    (guarded.root / "trial.count").write_text("ended=3\nran=1\nboot=\n")
    guarded.start()
    until(guarded.starts, "one runs")
    assert guarded.starts() == ["old"]
    assert guarded.place.failed() is not None


def test_a_guard_that_died_after_it_gave_up_goes_back_then(guarded: Guarded) -> None:
    guarded.bring(STAY)
    (guarded.root / "trial").rename(guarded.root / "trial.failed")
    guarded.start()
    until(guarded.starts, "one runs")
    assert guarded.starts() == ["old"]
    assert guarded.link.readlink() == guarded.old


def test_a_trial_that_failed_says_nothing_about_another_version(guarded: Guarded) -> None:
    guarded.bring(STAY, trial=False)
    (guarded.root / "trial.failed").write_text(f"new=/else/p2pdist-agent\nold={guarded.old}\n")
    guarded.start()
    until(guarded.starts, "one runs")
    assert guarded.starts() == ["new"]


def test_the_agent_and_the_guard_never_decide_both(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    guarded.bring(STAY)
    text = (guarded.root / "trial").read_text()
    for _ in range(100):
        (guarded.root / "trial").write_text(text)
        confirmed: list[bool] = []
        agent = threading.Thread(target=lambda into=confirmed: into.append(guarded.place.confirm()))
        agent.start()
        try:
            (guarded.root / "trial").rename(guarded.root / "trial.failed")
            gave_up = True
        except FileNotFoundError:
            gave_up = False
        agent.join()
        assert confirmed == [not gave_up]
        (guarded.root / "trial.failed").unlink(missing_ok=True)


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not here")
def test_the_shell_of_small_systems_reads_it() -> None:
    from p2pdist.duties.deploy.guard import GUARD

    subprocess.run(["busybox", "sh", "-n"], input=GUARD, text=True, check=True)
