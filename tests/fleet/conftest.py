"""Makes the helpers beside these tests, and the metadata workshop of the trust tests, importable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "trust"))

from fleet_logs import LogBook, record_into


@pytest.fixture(autouse=True)
def log_book() -> Iterator[LogBook]:
    """Everything that the nodes in this process log, by who logged it."""
    before = structlog.get_config()
    book = LogBook()
    record_into(book)
    yield book
    structlog.contextvars.clear_contextvars()
    structlog.configure(**before)
