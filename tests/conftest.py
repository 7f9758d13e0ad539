"""What holds for every test: how long hypothesis may look for examples, and in which order files are begun.

What importing and collecting made lives to the end and is kept from the garbage collector: each full
collection would walk through all of it again, which took a tenth of the time of the tests.

No example is timed: how long one takes depends on what else this machine does.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("whole", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=15, database=None)
settings.load_profile("whole")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect nothing while tests are collected, and never what is there then."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker waits for one of them at the end."""
    waits: dict[Path, int] = {}
    for item in items:
        weight = 2 * bool(item.get_closest_marker("network")) + bool(item.get_closest_marker("slow"))
        waits[item.path] = max(waits.get(item.path, 0), weight)
    items.sort(key=lambda item: -waits[item.path])
