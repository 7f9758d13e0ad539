"""What the worker and who drives it say to each other."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.installation import STEPS
from p2pdist.duties.deploy.protocol import (
    LENGTH_BYTES,
    Copied,
    Credentials,
    FrameReader,
    FromWorker,
    Host,
    Package,
    Prepare,
    StepDone,
    StepFailed,
    Work,
    decode_to_worker,
    encode_frame,
)
from p2pdist.errors import PeerError

MESSAGES: list[FromWorker] = [
    StepDone(id="a", attempt=1, step="key", found="SHA256:x", key="ssh-ed25519 AAAA"),
    Copied(id="b", attempt=2, size_bytes=65_536),
    StepFailed(id="c", attempt=3, step="copy", reason="its disk is full", final=True),
]


@pytest.mark.parametrize("step", STEPS)
def test_what_the_worker_is_told_arrives_as_it_was_said(step: str) -> None:
    work = Work(host=Host(id="a", address="192.0.2.7", token="t"), attempt=1, resume=step)  # type: ignore[arg-type]  # one of them
    assert decode_to_worker(encode_frame(work)[LENGTH_BYTES:]) == work


@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.data())
def test_messages_arrive_however_the_pipe_cuts_them(messages: list[FromWorker], data: st.DataObject) -> None:
    stream = b"".join(map(encode_frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    frames, found = FrameReader(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += frames.feed(stream[begin:end])
    assert found == messages


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_bytes_that_are_no_messages_are_refused_as_such(chunks: list[bytes]) -> None:
    frames = FrameReader()
    with contextlib.suppress(PeerError):
        for chunk in chunks:
            frames.feed(chunk)


def test_a_message_that_says_it_is_too_large_is_refused_before_it_comes() -> None:
    with pytest.raises(PeerError):
        FrameReader().feed((limits.INSTALL_FRAME_BYTES_MAX + 1).to_bytes(LENGTH_BYTES, "big"))


def test_nothing_secret_shows_in_a_traceback() -> None:
    credentials = Credentials(
        user="root", password="s3cret", key="s3cret", passphrase="s3cret", sudo_password="s3cret"
    )
    package = Package(path="/x", length=1, sha256="0" * 64, platform="linux-x86_64")
    host = Host(id="a", address="192.0.2.7", token="s3cret")
    prepare = Prepare(credentials=credentials, package=package, bundle=b"{}")
    assert "s3cret" not in repr((prepare, Work(host=host, attempt=1, resume="copy")))
