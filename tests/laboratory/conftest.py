"""Makes the laboratory importable, and leaves out what needs one where none can be built."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
sys.path[:0] = [
    str(Path(__file__).parent),
    str(_TESTS.parent / "tools"),
    str(_TESTS / "duties" / "discovery"),
]

from founding import Founding  # noqa: E402, the path above leads to it
from lab_fleet import LabFleet  # noqa: E402
from laboratory.namespaces import why_not  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _founding(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all processes of a test run share the fleet that is founded."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    LabFleet.founding = Founding(shared / "founding")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``network`` of this directory, with the reason, where there can be no network."""
    ours = [
        item
        for item in items
        if item.path.parent == Path(__file__).parent and item.get_closest_marker("network")
    ]
    reason = why_not() if ours else None
    for item in ours:
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
