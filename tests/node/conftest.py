"""Makes the metadata workshop of the trust tests importable here, and a fleet's nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "trust"))

from tests.node.nodes import Nodes


@pytest.fixture(scope="session")
def nodes() -> Nodes:
    return Nodes()
