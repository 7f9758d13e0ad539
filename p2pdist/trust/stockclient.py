"""The stock TUF client, without the HTTP fetcher that it brings along.

Metadata comes as bundles over the fleet's own links, so ``urllib3``, which :mod:`tuf.ngclient` imports for
its default fetcher, would be 3 MB of an endpoint's memory for nothing. This is the only module that imports
:mod:`tuf.ngclient`. A client that is made without a fetcher fails at once.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

_FETCHER: Final = "tuf.ngclient.urllib3_fetcher"


class _NoFetcher:
    def __init__(self, *arguments: object, **options: object) -> None:
        raise TypeError("give the client a fetcher: the default one is left out")


_hide = _FETCHER not in sys.modules
if _hide:
    _stub = ModuleType(_FETCHER)
    _stub.Urllib3Fetcher = _NoFetcher  # type: ignore[attr-defined]  # stands in for the module's only name
    sys.modules[_FETCHER] = _stub
try:
    from tuf.ngclient import Updater, UpdaterConfig
    from tuf.ngclient.fetcher import FetcherInterface
finally:
    if _hide:
        del sys.modules[_FETCHER]

__all__ = ["FetcherInterface", "Updater", "UpdaterConfig"]
