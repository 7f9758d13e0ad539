"""Makes the laboratory and the helpers beside these tests importable; leaves out what cannot run here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[3] / "tools")]

from laboratory.namespaces import why_not  # noqa: E402, the path above leads to it


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
