"""Our compact settings behave as those of h2 do."""

from __future__ import annotations

import tracemalloc
from typing import Any

from h2.exceptions import InvalidSettingsValueError
from h2.settings import SettingCodes, Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.net.h2settings import PeerSettings, own_settings

CODES = st.sampled_from(list(SettingCodes))
VALUES = st.sampled_from(
    [0, 1, 2, 4_096, 16_383, 16_384, 65_535, 2**24 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
)


def applied(kept: Settings, received: dict[Any, int]) -> Any:
    """Let settings arrive as h2 does it, and return everything that can be seen of the result."""
    try:
        for code, value in received.items():
            kept.validate_received_setting(code, value)
        kept.update(received)
    except InvalidSettingsValueError as error:
        return error.error_code
    changed = kept.acknowledge()
    return (
        {code: (change.original_value, change.new_value) for code, change in changed.items()},
        {code: kept.get(code) for code in SettingCodes},
        kept.max_concurrent_streams,
        kept.max_header_list_size,
        kept.initial_window_size,
    )


@given(st.lists(st.dictionaries(CODES, VALUES, max_size=4), max_size=4), st.booleans())
@settings(max_examples=200, deadline=None)
def test_they_take_in_the_same_and_refuse_the_same(received: list[dict[Any, int]], dialler: bool) -> None:
    stock, compact = Settings(client=dialler), PeerSettings(dialler=dialler)
    for each in received:
        assert applied(compact, each) == applied(stock, each)


def test_settings_that_nobody_knows_are_not_kept() -> None:
    compact = PeerSettings(dialler=True)
    tracemalloc.start()
    try:
        for code in range(100, 20_000):
            compact.update({code: 1})
            assert compact.acknowledge() == {}
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000
    assert len(compact) == 5


def test_all_links_share_their_own_settings() -> None:
    for dialler in (True, False):
        ours = own_settings(dialler=dialler, window_bytes=limits.LINK_WINDOW_BYTES)
        assert ours is own_settings(dialler=dialler, window_bytes=limits.LINK_WINDOW_BYTES)
        assert ours.enable_push == 0
        assert ours.initial_window_size == limits.LINK_WINDOW_BYTES
        assert ours.max_concurrent_streams == limits.LINK_STREAMS_MAX
        assert ours.acknowledge() == {}
