"""What people read."""

from __future__ import annotations

from p2pdist.cli.words import UNATTRIBUTED, by_source


def test_bytes_by_source_name_peers_the_origin_and_nobody() -> None:
    received = {"device": 1_024, "origin": 2_048, "point": 1_024, UNATTRIBUTED: 1_024}
    assert by_source(received, 0) == (
        "1.0 KiB from peers (20%), 2.0 KiB from the origin (40%), 1.0 KiB from points (20%),"
        " 1.0 KiB from nobody who could be named (20%)"
    )


def test_what_came_in_vain_is_told_even_if_nothing_else_came() -> None:
    assert by_source({}, 2_048) == "2.0 KiB more in vain"
    assert by_source({"point": 0}, 0) == "nothing yet"
