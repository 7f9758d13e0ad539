"""Makes the vendor beside these tests, and the web servers of the mirrors', importable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from vendor import Signer, open_signer


@pytest.fixture(scope="session")
def signer() -> Iterator[Signer]:
    """The keys ``vendor``, ``other``, and ``old``, which expired in January 2025."""
    with open_signer() as opened:
        opened.make("vendor", at="20250601T000000")
        opened.make("other")
        opened.make("old", at="20250101T000000", life="30d")
        yield opened
