"""The outside addresses of far devices, and when they change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.farhosts import FarHosts
from p2pdist.ids import node_id_of

NODES = [node_id_of(bytes([n]) * 32) for n in range(6)]
placings = st.lists(
    st.tuples(st.sampled_from(NODES), st.one_of(st.none(), st.sampled_from(["a", "b", "c", "d"]))),
    max_size=40,
)


@given(placings)
def test_the_hosts_are_those_of_the_devices_and_every_change_is_told(
    script: list[tuple[str, str | None]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "FAR_HOSTS_MAX", 2)
        far, known = FarHosts(), dict[str, str]()
        for node, host in script:
            before = far.hosts()
            changed = far.handle_placed(node, host)  # type: ignore[arg-type]
            known.pop(node, None)
            if host is not None:
                known[node] = host
            assert changed or far.hosts() == before
            assert len(far.hosts()) == min(2, len(set(known.values())))
            assert set(far.hosts()) <= set(known.values())


def test_another_device_at_the_same_address_changes_nothing() -> None:
    far = FarHosts()
    assert far.handle_placed(NODES[0], "203.0.113.1")
    assert not far.handle_placed(NODES[0], "203.0.113.1")
    assert not far.handle_placed(NODES[1], "203.0.113.1")
    assert not far.handle_placed(NODES[0], None)
    assert far.handle_placed(NODES[1], None)
