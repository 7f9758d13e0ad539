"""What the guard has written down, as the agent reads it: whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.install.trial import Place

LINES = st.lists(
    st.tuples(
        st.sampled_from(["new", "old", "number", "starts", "ended", "ran", "boot", ""]),
        st.one_of(st.integers(-(10**12), 10**12).map(str), st.text(max_size=20)),
    ).map("=".join),
    max_size=8,
).map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))
CONTENT = st.one_of(st.binary(max_size=200), LINES)


def place(directory: Path) -> Place:
    running = directory / "versions" / "first" / "p2pdist-agent"
    running.parent.mkdir(parents=True, exist_ok=True)
    return Place(running, "1" * 64)


@given(failed=CONTENT, count=CONTENT, reason=CONTENT, ours=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_stands_there_is_more_than_a_failure_of_this_version(
    tmp_path: Path, failed: bytes, count: bytes, reason: bytes, ours: bool
) -> None:
    trial = place(tmp_path)
    if ours:
        failed += f"\nnew={trial.new}\n".encode()
    for name, content in (("failed", failed), ("count", count), ("reason", reason)):
        (tmp_path / f"trial.{name}").write_bytes(content)
    said = trial.failed()
    assert (said is not None) == ours
    if said is not None:
        assert said.reason != "" and 0 <= said.number < 10**9


@pytest.mark.parametrize("name", ["failed", "count", "reason"])
def test_a_file_that_is_too_large_says_nothing(tmp_path: Path, name: str) -> None:
    trial = place(tmp_path)
    (tmp_path / "trial.failed").write_text(f"new={trial.new}\nnumber=1\nstarts=3\n")
    (tmp_path / f"trial.{name}").write_bytes(b"=" * (limits.TRIAL_FILE_BYTES_MAX + 1))
    said = trial.failed()
    assert (said is None) == (name == "failed")
