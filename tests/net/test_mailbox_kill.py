"""``kill -9`` of a gateway's mailbox at any instant: every envelope with a receipt is there afterwards."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from p2pdist.net.mailfile import open_mail_file

PROGRAM = Path(__file__).with_name("killed_mailbox.py")
ROUNDS = 6


def run_and_kill(path: Path, first: int, seed: int, after_lines: int, after_s: float) -> list[str]:
    """Run the mailbox, kill it so long after it has said so many things, and return what it has said."""
    command = [sys.executable, str(PROGRAM), str(path), str(first), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        enough = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if len(lines) > after_lines:
                    enough.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert enough.wait(20), "it does not work"
        time.sleep(after_s)
        process.kill()
        reader.join(20)
        assert process.wait(20) == -9, "it ended by itself"
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_no_envelope_with_a_receipt_is_lost_however_often_the_gateway_is_killed(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    path = tmp_path / "mailbox.db"
    accepted: set[int] = set()
    passed: set[int] = set()
    for number in range(ROUNDS):
        first, child_seed = 1 + number * 100_000, seed * 100 + number
        after_lines = rng.randrange(1_500) if child_seed % 3 else rng.randrange(100)
        lines = run_and_kill(path, first, child_seed, after_lines, rng.uniform(0.0, 0.05))
        for line in lines:
            kind, *counters = line.split()
            if kind == "accepted":
                accepted.update(map(int, counters))
            elif kind == "passed":
                passed.update(map(int, counters))
        file, letters = open_mail_file(path)
        there = {letter.counter for letter in letters}
        file.close()
        assert accepted - passed <= there, "what has a receipt is here, or the next hop has it"
        assert [letter.counter for letter in letters] == sorted(there), "in order, and once"
        assert not path.with_name("mailbox.db.damaged").exists()
    assert accepted
    assert passed
