"""What holds for every test: how long hypothesis may look for examples, and in which order files are begun.

No example is timed: how long one takes depends on what else this machine does.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("whole", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=15, database=None)
settings.load_profile("whole")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker waits for one of them at the end."""
    waits: dict[Path, int] = {}
    for item in items:
        weight = 2 * bool(item.get_closest_marker("network")) + bool(item.get_closest_marker("slow"))
        waits[item.path] = max(waits.get(item.path, 0), weight)
    items.sort(key=lambda item: -waits[item.path])
