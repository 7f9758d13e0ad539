"""The way to every node below a gateway, in chains of gateways."""

from __future__ import annotations

from itertools import pairwise

import pytest

from p2pdist import limits
from p2pdist.core.routes import Routes
from p2pdist.errors import TrustError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.wire.frames import Attached

SERVER, G, H, K, D, E = (NodeId(letter * 32) for letter in "sghkde")


def below(*nodes: NodeId, node: NodeId = SERVER) -> Routes:
    """A gateway with these direct neighbours below it, attached in this order."""
    routes = Routes(node, top=node == SERVER)
    for stamp, each in enumerate(nodes, start=1):
        routes.attached(each, stamp)
    return routes


def test_a_node_is_reached_through_the_neighbour_whose_subtree_it_is_in() -> None:
    routes = below(G, D)
    routes.heard(G, Attached(carrier=G, nodes={H: 5}))
    routes.heard(G, Attached(carrier=H, nodes={E: 9}))
    assert [routes.next_hop(node) for node in (D, G, H, E)] == [D, G, G, G]
    assert routes.carrier(E) == H
    assert routes.next_hop(K) is None


def test_a_node_that_appears_behind_another_gateway_is_reached_there() -> None:
    routes = below(G, H)
    routes.heard(G, Attached(carrier=G, nodes={D: 5}))
    routes.heard(H, Attached(carrier=H, nodes={D: 6}))
    assert routes.next_hop(D) == H


def test_stale_news_of_the_old_gateway_changes_nothing() -> None:
    routes = below(G, H)
    routes.heard(H, Attached(carrier=H, nodes={D: 6}))
    routes.heard(G, Attached(carrier=G, nodes={D: 5}))
    assert routes.next_hop(D) == H
    routes.heard(G, Attached(carrier=G, nodes={}, gone=[D]))
    assert routes.next_hop(D) == H


def test_a_gateway_that_moves_takes_everything_below_it_along() -> None:
    routes = below(G, H)
    routes.heard(G, Attached(carrier=G, nodes={K: 5}))
    routes.heard(G, Attached(carrier=K, nodes={D: 7}))
    routes.heard(H, Attached(carrier=H, nodes={K: 6}))
    assert routes.next_hop(D) is None
    routes.heard(H, Attached(carrier=K, nodes={D: 7, E: 8}))
    assert [routes.next_hop(node) for node in (K, D, E)] == [H, H, H]
    routes.heard(G, Attached(carrier=K, nodes={}, gone=[D]))  # still on its way when it moved
    assert routes.next_hop(D) == H


def test_when_a_gateway_is_gone_so_is_everything_below_it() -> None:
    routes = below(G, D)
    routes.heard(G, Attached(carrier=G, nodes={H: 5}))
    routes.heard(G, Attached(carrier=H, nodes={E: 9}))
    routes.detached(G)
    assert [routes.next_hop(node) for node in (D, G, H, E)] == [D, None, None, None]
    assert dict(routes.claimed()) == {D: SERVER}


def test_it_says_which_nodes_may_have_another_carrier_now() -> None:
    routes = below(G, D)
    assert set(routes.moved()) == {G, D}
    routes.heard(G, Attached(carrier=G, nodes={H: 5}))
    routes.heard(G, Attached(carrier=H, nodes={E: 9}))
    assert set(routes.moved()) == {H, E}
    routes.detached(G)
    assert set(routes.moved()) == {G, H, E}
    assert routes.moved() == ()


def test_a_neighbour_is_believed_about_nobody_who_is_not_below_it() -> None:
    routes = below(G, H)
    routes.heard(H, Attached(carrier=H, nodes={K: 5}))
    routes.heard(G, Attached(carrier=K, nodes={D: 7}))
    routes.heard(G, Attached(carrier=H, nodes={E: 7}, gone=[K]))
    assert [routes.next_hop(node) for node in (K, D, E)] == [H, None, None]


def test_only_what_has_changed_is_told_upwards_and_a_new_neighbour_above_hears_everything() -> None:
    routes = below(D, E, node=G)
    assert routes.poll() == [Attached(carrier=G, nodes={D: 1, E: 2})]
    assert routes.poll() == []
    routes.detached(D)
    routes.attached(H, 3)
    routes.heard(H, Attached(carrier=H, nodes={K: 4}))
    assert routes.poll() == [Attached(carrier=G, nodes={H: 3}, gone=[D]), Attached(carrier=H, nodes={K: 4})]
    routes.attached(D, 9)
    assert routes.whole() == [
        Attached(carrier=G, nodes={E: 2, H: 3, D: 9}),
        Attached(carrier=H, nodes={K: 4}),
    ]
    assert routes.poll() == []


def test_fifteen_thousand_devices_are_told_in_frames_that_fit_and_one_more_in_a_small_one() -> None:
    routes = Routes(G)
    nodes = [NodeId(f"{number:032d}".replace("0", "a").replace("1", "b").replace("8", "c").replace("9", "d"))
             for number in range(15_000)]  # fmt: skip
    for node in nodes:
        routes.attached(node, 2**62)
    whole = routes.whole()
    assert [len(frame.nodes) for frame in whole] == [limits.ATTACHED_MAX, 15_000 - limits.ATTACHED_MAX]
    routes.detached(nodes[7])
    assert routes.poll() == [Attached(carrier=G, nodes={}, gone=[nodes[7]])]


def test_a_gateway_that_is_above_is_not_carried_and_the_reason_names_the_loop() -> None:
    routes = Routes(G)
    routes.set_above([H, K, SERVER])
    assert routes.way == (G, H, K, SERVER)
    with pytest.raises(TrustError, match=f"a loop of gateways: {K} → {G} → {H} → {K}"):
        routes.check_gateway(K)
    with pytest.raises(TrustError, match=f"a loop of gateways: {G} → {G}"):
        routes.check_gateway(G)
    with pytest.raises(TrustError, match=f"{H} → {G} → {H}"):
        routes.attached(H, 1)
    routes.check_gateway(D)


def test_a_gateway_that_finds_itself_on_its_own_way_has_no_way() -> None:
    routes = Routes(G)
    routes.set_above([H, SERVER])
    with pytest.raises(TrustError, match=f"{G} → {H} → {K} → {G}"):
        routes.set_above([H, K, G, SERVER])
    assert routes.way == ()


def test_a_gateway_without_a_way_to_the_admin_server_takes_no_gateways() -> None:
    with pytest.raises(Unavailable, match="no way to the admin server"):
        Routes(G).check_gateway(H)
    Routes(SERVER, top=True).check_gateway(H)


def test_a_chain_of_gateways_has_an_end() -> None:
    chain = [NodeId(letter * 32) for letter in "abcdefijkl"]
    routes = Routes(G)
    routes.set_above([*chain[: limits.GATEWAYS_IN_A_ROW_MAX - 2], SERVER])
    with pytest.raises(Unavailable, match="in a row"):
        routes.check_gateway(H)
    with pytest.raises(Unavailable, match="in a row"):
        routes.set_above([*chain[: limits.GATEWAYS_IN_A_ROW_MAX], SERVER])
    top = below(chain[0])
    for carrier, node in pairwise(chain):
        top.heard(chain[0], Attached(carrier=carrier, nodes={node: 1}))
    assert top.next_hop(chain[5]) == chain[0]
    assert top.next_hop(chain[-1]) is None


def test_a_table_of_nodes_has_an_end_and_what_is_known_stays() -> None:
    routes = Routes(SERVER, top=True, nodes_max=2)
    routes.attached(G, 1)
    with pytest.raises(Unavailable, match="more than 2 are below"):
        routes.heard(G, Attached(carrier=G, nodes={D: 5, E: 6}))
    assert routes.next_hop(D) == G
    assert routes.next_hop(E) is None
    routes.heard(G, Attached(carrier=G, nodes={D: 7}, gone=[E]))
    assert routes.carrier(D) == G
    routes.attached(H, 1)
    assert routes.next_hop(H) == H, "whoever has a link is not left out"


def test_a_gateway_that_lies_about_nodes_above_it_makes_no_loop() -> None:
    routes = Routes(G)
    routes.set_above([K, SERVER])
    routes.attached(H, 1)
    routes.heard(H, Attached(carrier=H, nodes={G: 2**62, K: 2**62, SERVER: 2**62, D: 3}))
    routes.heard(H, Attached(carrier=D, nodes={H: 2**62}))
    assert [routes.next_hop(node) for node in (G, K, SERVER, D, H)] == [None, None, None, H, H]
