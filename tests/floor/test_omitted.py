"""Libraries imported without some of their modules."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from p2pdist.omitted import omitted

NAME = "p2pdist_test_no_such_module"


def test_a_stand_in_is_imported_in_the_block_and_gone_afterwards() -> None:
    stand_in = ModuleType(NAME)
    with omitted({NAME: stand_in}):
        assert __import__(NAME) is stand_in
    assert NAME not in sys.modules


def test_a_module_without_a_stand_in_cannot_be_imported_in_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with omitted({"this": None}), pytest.raises(ImportError):
        __import__("this")
    assert "this" not in sys.modules


def test_a_module_that_is_loaded_stays_itself() -> None:
    with omitted({"sys": None, "types": ModuleType("types")}):
        assert sys.modules["sys"] is sys
        assert sys.modules["types"].ModuleType is ModuleType
    assert sys.modules["sys"] is sys


def test_stand_ins_are_gone_when_an_import_fails() -> None:
    with pytest.raises(ImportError), omitted({NAME: ModuleType(NAME)}):
        raise ImportError
    assert NAME not in sys.modules
