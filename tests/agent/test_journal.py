"""The agent's memory on the disk."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.agent.journal import Journal
from p2pdist.errors import Unavailable, UsageError


def test_what_was_applied_is_there_after_opening_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.apply({"a": b"1", "b": b"2"})
    journal.apply({"a": b"3", "b": None, "c": b""})
    journal.close()
    again = Journal(tmp_path / "journal")
    assert again.records() == {"a": b"3", "c": b""}
    again.close()


@given(
    st.lists(st.dictionaries(st.text(max_size=8), st.none() | st.binary(max_size=64), max_size=6), max_size=8)
)
@settings(max_examples=15, deadline=None)
def test_a_journal_holds_what_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, all_changes: list[dict[str, bytes | None]]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal")
    expected: dict[str, bytes] = {}
    for changes in all_changes:
        journal.apply(changes)
        for key, value in changes.items():
            expected.pop(key, None)
            if value is not None:
                expected[key] = value
    assert journal.records() == expected
    journal.close()


def test_too_large_a_record_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with pytest.raises(UsageError, match="too large"):
        journal.apply({"small": b"1", "large": bytes(limits.JOURNAL_RECORD_BYTES_MAX + 1)})
    assert journal.records() == {}
    journal.close()


def test_too_many_records_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOURNAL_RECORDS_MAX", 3)
    journal = Journal(tmp_path / "journal")
    journal.apply({"a": b"", "b": b"", "c": b""})
    with pytest.raises(UsageError, match="more than 3"):
        journal.apply({"a": b"changed", "d": b""})
    assert journal.records() == {"a": b"", "b": b"", "c": b""}
    journal.apply({"a": None, "d": b""})
    journal.close()


def test_a_second_process_is_told_that_the_journal_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.agent.journal._BUSY_S", 0.01)
    first = Journal(tmp_path / "journal")
    with pytest.raises(Unavailable, match="another process"):
        Journal(tmp_path / "journal")
    first.close()


def test_a_damaged_journal_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"this is no database" * 1_000)
    with pytest.raises(UsageError, match=r"damaged.*move it away"):
        Journal(path)


@given(st.integers(min_value=0, max_value=2**32))
@example(15256769)  # SQLite's own message quoted text that was not UTF-8
@settings(max_examples=20, deadline=None)
def test_random_damage_is_noticed_or_harmless(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    path = tmp_path_factory.mktemp("damaged") / "journal"
    journal = Journal(path)
    journal.apply({f"task/{number}": bytes(200) for number in range(50)})
    journal.close()
    data = bytearray(path.read_bytes())
    rng = random.Random(seed)
    for _ in range(rng.randrange(1, 60)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data[: rng.randrange(1, len(data) + 1)])
    try:
        journal = Journal(path)
    except (UsageError, Unavailable):
        return
    try:
        journal.records()
        journal.apply({"new": b"record"})
    except (UsageError, Unavailable):
        pass
    finally:
        journal.close()


def test_a_journal_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(UsageError, match="format 9"):
        Journal(path)


def test_a_full_disk_leaves_the_journal_as_it_was_and_usable(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.apply({"a": b"1"})
    journal._database.execute("PRAGMA max_page_count = 8")
    with pytest.raises(Unavailable):
        journal.apply({"big": bytes(200_000)})
    assert journal.records() == {"a": b"1"}
    journal.apply({"b": b"2"})
    assert journal.records() == {"a": b"1", "b": b"2"}
    journal.close()


def test_the_file_does_not_grow_with_the_number_of_changes(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    for number in range(300):
        journal.apply({f"report/{number}": bytes(20_000), f"report/{number - 1}": None})
    used = sum(file.stat().st_size for file in tmp_path.iterdir())
    journal.close()
    assert used < limits.MIB


WRITER = """
import sys
from pathlib import Path
from p2pdist.agent.journal import Journal
journal = Journal(Path(sys.argv[1]))
number = int(journal.records().get("a", b"0"))
while True:
    number += 1
    journal.apply({"a": b"%d" % number, "b": b"%d" % number})
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_was_told_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    rng = random.Random(7)
    told = 0
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, start_new_session=True
        )
        assert writer.stdout is not None
        for _ in range(rng.randrange(3, 40)):
            told = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
        told = int(rest[-1]) if rest else told
        writer.stdout.close()
        writer.wait()
        journal = Journal(path)
        records = journal.records()
        journal.close()
        assert records["a"] == records["b"], "half of a change"
        assert int(records["a"]) >= told
