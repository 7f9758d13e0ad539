from __future__ import annotations

import pytest

from tests.node.nodes import Nodes


@pytest.fixture(scope="session")
def nodes() -> Nodes:
    return Nodes()
