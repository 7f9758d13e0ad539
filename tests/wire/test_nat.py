"""What a NAT does, in one sentence."""

from __future__ import annotations

import pytest

from p2pdist.errors import PeerError
from p2pdist.wire.codec import decode, encode
from p2pdist.wire.nat import DEPENDENCES, NatBehaviour
from p2pdist.wire.stun import Endpoint

GATEWAY = Endpoint("198.51.100.1", 3478)
INSIDE = Endpoint("10.0.0.5", 40000)
OUTSIDE = Endpoint("203.0.113.9", 40000)
SHOWS = "a NAT shows 10.0.0.5:40000 as 203.0.113.9:40000"
DOUBT = "hairpinning (a gateway with two addresses would know more)"
CONE = NatBehaviour(
    gateway=GATEWAY,
    local=INSIDE,
    mapped=OUTSIDE,
    mapping=("endpoint-independent",),
    filtering=("address-and-port-dependent",),
    hairpinning=False,
    addresses=2,
)


@pytest.mark.parametrize(
    ("behaviour", "sentence"),
    [
        (
            CONE,
            f"{SHOWS}: endpoint-independent mapping, address-and-port-dependent filtering, no hairpinning",
        ),
        (
            NatBehaviour(
                gateway=GATEWAY,
                local=INSIDE,
                mapped=OUTSIDE,
                mapping=("endpoint-independent", "address-dependent"),
                hairpinning=True,
                addresses=1,
            ),
            f"{SHOWS}: endpoint-independent or address-dependent mapping, unknown filtering, {DOUBT}",
        ),
        (
            NatBehaviour(
                gateway=GATEWAY,
                local=Endpoint("8.8.4.4", 40000),
                mapped=Endpoint("8.8.4.4", 40000),
                mapping=("endpoint-independent",),
                filtering=("endpoint-independent",),
                addresses=2,
            ),
            "no NAT before 8.8.4.4:40000, a public address: endpoint-independent filtering",
        ),
        (
            NatBehaviour(gateway=GATEWAY, local=INSIDE, mapped=INSIDE, addresses=2),
            "no NAT before 10.0.0.5:40000: unknown filtering",
        ),
        (
            NatBehaviour(gateway=GATEWAY, local=INSIDE),
            "no answer over UDP from 198.51.100.1:3478: UDP is blocked, or the gateway does not answer",
        ),
    ],
)
def test_a_behaviour_is_said_in_one_sentence(behaviour: NatBehaviour, sentence: str) -> None:
    assert behaviour.describe() == sentence


def test_a_behaviour_can_travel_in_a_message() -> None:
    assert decode(encode(CONE), NatBehaviour) == CONE


@pytest.mark.parametrize("fake", [{"mapping": ()}, {"mapping": DEPENDENCES * 2}, {"addresses": 3}])
def test_a_behaviour_that_cannot_be_is_refused(fake: dict[str, object]) -> None:
    values = {name: getattr(CONE, name) for name in NatBehaviour.__struct_fields__}
    with pytest.raises(PeerError):
        decode(encode(NatBehaviour(**{**values, **fake})), NatBehaviour)
