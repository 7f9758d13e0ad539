"""Settings of an HTTP/2 connection (RFC 9113, 6.5.2) that cost an idle link little.

``h2`` keeps a queue for each setting of each side: 11 KB of the 60 that a link may cost. Ours are the
same for every link, so all links share them; the other side's are one small mapping.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from h2.settings import ChangedSetting, SettingCodes, Settings

from p2pdist import limits

PACE: Final = 0xDD
"""A setting of our own: after how many seconds of silence whoever sets it may be asked for a sign of life.
Others ignore it (RFC 9113, 6.5.2). Not above 255: hyperframe writes one byte of the number."""
_KNOWN: Final = frozenset(SettingCodes)


@cache
def own_settings(*, dialler: bool, window_bytes: int) -> Settings:
    """Return what this side sets. They never change, so the object is shared: do not set anything in it.

    Args:
        dialler: Whether this side dialled.
        window_bytes: Received and unread on one stream, at most.
    """
    ours = {
        SettingCodes.ENABLE_PUSH: 0,
        SettingCodes.INITIAL_WINDOW_SIZE: window_bytes,
        SettingCodes.MAX_CONCURRENT_STREAMS: limits.LINK_STREAMS_MAX,
        SettingCodes.MAX_HEADER_LIST_SIZE: limits.LINK_HEADER_BYTES_MAX,
    }
    return Settings(client=dialler, initial_values=ours)


class PeerSettings(Settings):
    """What the other side has set, with the defaults of the RFC until then.

    Args:
        dialler: Whether the *other* side is the one that dialled.
    """

    def __init__(self, *, dialler: bool) -> None:
        self._client = dialler  # what Settings.validate_received_setting() asks for
        self._values: dict[SettingCodes | int, int] = {
            SettingCodes.HEADER_TABLE_SIZE: 4_096,
            SettingCodes.ENABLE_PUSH: int(dialler),
            SettingCodes.INITIAL_WINDOW_SIZE: 65_535,
            SettingCodes.MAX_FRAME_SIZE: 16_384,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: 0,
        }
        self._pending: dict[SettingCodes | int, int] | None = None

    def acknowledge(self) -> dict[SettingCodes | int, ChangedSetting]:
        """Take what was set into use, and return what has changed."""
        pending, self._pending = self._pending or {}, None
        changed = {}
        for code, value in pending.items():
            if code in _KNOWN:  # others mean nothing to us (RFC 9113, 6.5.2), and are not kept
                changed[code] = ChangedSetting(code, self._values.get(code), value)
                self._values[code] = value
        return changed

    def __getitem__(self, key: SettingCodes | int) -> int:
        return self._values[key]

    def __setitem__(self, key: SettingCodes | int, value: int) -> None:
        self.validate_received_setting(key, value)
        if self._pending is None:
            self._pending = {}
        self._pending[key] = value

    def __delitem__(self, key: SettingCodes | int) -> None:
        del self._values[key]

    def __iter__(self) -> Iterator[SettingCodes | int]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__
