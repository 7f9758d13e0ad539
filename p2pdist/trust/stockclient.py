"""The stock TUF client, without the HTTP fetcher that it brings along.

Metadata comes as bundles over the fleet's own links, so ``urllib3``, which :mod:`tuf.ngclient` imports for
its default fetcher, would be 3 MB of an endpoint's memory for nothing. This is the only module that imports
:mod:`tuf.ngclient`. A client that is made without a fetcher fails at once.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

from p2pdist.omitted import omitted

_FETCHER: Final = "tuf.ngclient.urllib3_fetcher"


class _NoFetcher:
    def __init__(self, *arguments: object, **options: object) -> None:
        raise TypeError("give the client a fetcher: the default one is left out")


_stand_in = ModuleType(_FETCHER)
_stand_in.Urllib3Fetcher = _NoFetcher  # type: ignore[attr-defined]  # the module's only name
with omitted({_FETCHER: _stand_in}):
    from tuf.ngclient import Updater, UpdaterConfig
    from tuf.ngclient.fetcher import FetcherInterface

__all__ = ["FetcherInterface", "Updater", "UpdaterConfig"]
