"""The file of a mailbox, and whatever can have happened to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist.core.mailbox import Letter
from p2pdist.ids import NodeId
from p2pdist.net.mailfile import ROW_BYTES, Damaged, MailFile, aside, open_mail_file
from p2pdist.wire.envelope import Envelope

A, SERVER = NodeId("a" * 32), NodeId("s" * 32)


def envelope(number: int, size: int = 100) -> tuple[Letter, Envelope]:
    sealed = Envelope(sender=A, recipient=SERVER, counter=number, expires=2**31, box=bytes(size))
    letter = Letter(
        number=number, sender=A, recipient=SERVER, counter=number, expires=2**31, size=size + ROW_BYTES, via=A
    )
    return letter, sealed


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with fifty envelopes, closed in good order."""
    path = tmp_path_factory.mktemp("filled") / "mailbox.db"
    file, _ = open_mail_file(path)
    file.apply([envelope(number) for number in range(1, 51)], [])
    file.close()
    return path


def test_what_is_written_is_read_again_and_what_is_removed_is_not(tmp_path: Path) -> None:
    file, letters = open_mail_file(tmp_path / "mailbox.db")
    assert letters == []
    new = [envelope(number, size=number) for number in (40, 41, 42)]
    file.apply(new, [])
    file.apply([], [41])
    assert file.load([40, 41, 42]) == {40: new[0][1], 42: new[2][1]}
    file.close()
    file, letters = open_mail_file(tmp_path / "mailbox.db")
    assert [(letter.number, letter.size, letter.stored) for letter in letters] == [
        (40, 40 + ROW_BYTES, True),
        (42, 42 + ROW_BYTES, True),
    ]
    file.close()


def test_the_space_of_what_was_removed_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "mailbox.db"
    file, _ = open_mail_file(path)
    file.apply([envelope(number, 10_000) for number in range(1, 201)], [])
    file.close()
    before = path.stat().st_size
    file, _ = open_mail_file(path)
    file.apply([], range(1, 201))
    file.close()
    assert before > 2_000_000 > 100_000 > path.stat().st_size


@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=40)), max_size=3),
    st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_with_any_damage_it_opens_as_it_is_or_is_set_aside(
    tmp_path_factory: pytest.TempPathFactory,
    filled: Path,
    damages: list[tuple[float, bytes]],
    kept: float,
) -> None:
    path = tmp_path_factory.mktemp("any") / "mailbox.db"
    content = bytearray(filled.read_bytes())
    for place, damage in damages:
        start = int(place * len(content))
        content[start : start + len(damage)] = damage
    path.write_bytes(bytes(content[: int(kept * len(content)) if kept < 0.5 else None]))
    file, letters = open_mail_file(path)
    try:
        assert letters == [] or not aside(path).exists()
        try:
            file.load([letter.number for letter in letters])
        except Damaged:
            file.close()
            return
        file.apply([envelope(1_000_000)], [letter.number for letter in letters])
    except Damaged:
        pass
    finally:
        file.close()
        shutil.rmtree(path.parent)


def test_text_that_is_not_text_is_damage(tmp_path: Path, filled: Path) -> None:
    path = tmp_path / "mailbox.db"
    path.write_bytes(filled.read_bytes().replace(b"a" * 32, b"\xff" * 32))
    with pytest.raises(Damaged):
        MailFile(path).letters()
