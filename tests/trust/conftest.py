"""Fixtures of the trust tests, and what makes the helpers beside them importable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pdist.trust.verifier import Verifier

sys.path.insert(0, str(Path(__file__).parent))

from workshop import Workshop


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture
def make_verifier(tmp_path: Path, workshop: Workshop) -> Callable[[], Verifier]:
    """Make a verifier over one directory, as a program does each time it starts."""

    def make() -> Verifier:
        return Verifier(tmp_path / "trust", workshop.roots[0])

    return make


@pytest.fixture
def verifier(make_verifier: Callable[[], Verifier]) -> Verifier:
    return make_verifier()
