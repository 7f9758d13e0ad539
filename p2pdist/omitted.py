"""Importing a library without modules that it needs only for what is not used here.

What is imported stays in the memory of every endpoint for as long as it runs. Used where a library is
imported in one place only, so that nobody else meets it with something missing.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def omitted(modules: Mapping[str, ModuleType | None]) -> Generator[None, None, None]:
    """While the block imports, have stand-ins take the places of modules, or nothing (None: there is none).

    A module that is loaded already stays what it is. Who imports one of them afterwards gets it whole.
    """
    stand_ins = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(stand_ins)  # type: ignore[arg-type]  # None is how Python writes that there is none
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
