"""Whether this process is one that its guard can replace."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.agent.guarded import guarded_program


def test_a_version_that_a_guard_has_started_can_be_replaced() -> None:
    program = guarded_program({"P2PDIST_GUARDED": "/opt/p2pdist-agent/versions/abc/p2pdist-agent"})
    assert program is not None
    assert program.file == Path("/opt/p2pdist-agent/versions/abc/p2pdist-agent")


@pytest.mark.parametrize(
    "file", ["", "versions/abc/p2pdist-agent", "/usr/bin/p2pdist-agent", "/opt/versions/p2pdist-agent", "/"]
)
def test_what_stands_elsewhere_or_was_started_otherwise_can_not(file: str) -> None:
    assert guarded_program({"P2PDIST_GUARDED": file}) is None
    assert guarded_program({}) is None
