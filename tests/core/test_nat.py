"""Finding out what a NAT does: each NAT of RFC 4787, seen from one or two addresses, over bad networks."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.nat import PROBE_SOCKETS, NatProbe, ProbeSocket, SendDatagram
from p2pdist.errors import UsageError
from p2pdist.wire.nat import DEPENDENCES, Dependence, NatBehaviour
from p2pdist.wire.stun import BindingAnswer, BindingError, BindingRequest, Endpoint, decode, encode
from tests.core.simulated_nat import ONE_WAY_S, OUTSIDE, Nat, Network

EVERY_NAT = list(itertools.product(DEPENDENCES, DEPENDENCES))
FIRST, OTHER_PORT = Endpoint("198.51.100.1", 3478), Endpoint("198.51.100.1", 3479)
OTHER = Endpoint("198.51.100.2", 3479)
ROUND_S_MAX = 4.5


def visible(truth: Dependence, addresses: int) -> tuple[Dependence, ...]:
    """What theory lets anybody see: from one address, only whether the port matters."""
    if addresses == 2 or truth == "address-and-port-dependent":
        return (truth,)
    return ("endpoint-independent", "address-dependent")


@pytest.mark.parametrize("addresses", [1, 2])
@pytest.mark.parametrize("hairpins", [False, True])
@pytest.mark.parametrize(("mapping", "filtering"), EVERY_NAT)
def test_each_nat_is_seen_as_what_it_is(
    mapping: Dependence, filtering: Dependence, hairpins: bool, addresses: int
) -> None:
    network = Network(Nat(mapping, filtering, hairpins), hosts=[FIRST.host, OTHER.host][:addresses])

    behaviour = network.probe()

    assert behaviour.translated
    assert behaviour.mapped is not None and behaviour.mapped.host == OUTSIDE
    assert behaviour.mapping == visible(mapping, addresses)
    assert behaviour.filtering == visible(filtering, addresses)
    # Behind a NAT that gives the call a new mapping, only a filter that does not look at ports lets it in.
    knows_the_caller = mapping == "endpoint-independent" or filtering != "address-and-port-dependent"
    assert behaviour.hairpinning == (hairpins and knows_the_caller)
    assert behaviour.addresses == addresses


@pytest.mark.parametrize("filtering", DEPENDENCES)
def test_a_firewall_without_translation_filters_and_maps_nothing(filtering: Dependence) -> None:
    behaviour = Network(Nat(filtering=filtering, translates=False)).probe()

    assert not behaviour.translated
    assert behaviour.mapped == behaviour.local
    assert behaviour.mapping == ("endpoint-independent",)
    assert behaviour.filtering == (filtering,)
    assert behaviour.hairpinning is None


@pytest.mark.parametrize(("mapping", "filtering"), EVERY_NAT)
def test_three_lost_packets_of_every_four_change_nothing(mapping: Dependence, filtering: Dependence) -> None:
    """Requests are lost three times each: the network loses whatever leaves before the fourth round."""
    network = Network(Nat(mapping, filtering, hairpins=True))
    seen: dict[bytes, int] = {}
    real = network._leave

    def leave(inside: Endpoint, to: Endpoint, data: bytes) -> None:
        seen[data] = seen.get(data, 0) + 1
        network.nat.outbound(inside, to)  # the NAT has seen it: it is lost behind it
        if seen[data] == limits.PROBE_REQUESTS_MAX:
            real(inside, to, data)

    network._leave = leave  # type: ignore[method-assign]

    behaviour = network.probe()

    assert behaviour == Network(Nat(mapping, filtering, hairpins=True)).probe()


@given(
    nat=st.sampled_from(EVERY_NAT),
    addresses=st.sampled_from([1, 2]),
    loss=st.sampled_from([0.05, 0.3, 0.7]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_a_bad_network_makes_the_result_vaguer_or_stricter_and_never_too_good(
    nat: tuple[Dependence, Dependence], addresses: int, loss: float, seed: int
) -> None:
    rng = random.Random(seed)
    network = Network(
        Nat(*nat),
        hosts=[FIRST.host, OTHER.host][:addresses],
        lost=lambda number: rng.random() < loss,
        copies=lambda number: rng.choice([1, 1, 2, 3]),
    )

    started = network.now
    behaviour = network.probe()

    assert behaviour.mapping == DEPENDENCES or nat[0] in behaviour.mapping
    assert DEPENDENCES.index(behaviour.filtering[-1]) >= DEPENDENCES.index(nat[1])
    assert network.now - started <= 2 * ROUND_S_MAX
    assert network.sent <= 9 * limits.PROBE_REQUESTS_MAX


def test_a_network_that_loses_one_packet_in_twenty_is_seen_through() -> None:
    wrong = 0
    for (mapping, filtering), seed in itertools.product(EVERY_NAT, range(20)):
        rng = random.Random(seed)
        behaviour = Network(Nat(mapping, filtering), lost=lambda n, rng=rng: rng.random() < 0.05).probe()  # type: ignore[misc]
        wrong += (behaviour.mapping, behaviour.filtering) != ((mapping,), (filtering,))
    assert wrong == 0


def test_blocked_udp_is_said_after_one_round() -> None:
    network = Network(Nat(), lost=lambda number: True)
    started = network.now

    behaviour = network.probe()

    assert not behaviour.udp
    assert (behaviour.mapping, behaviour.filtering) == (DEPENDENCES, DEPENDENCES)
    assert network.now - started == pytest.approx(ROUND_S_MAX)


def test_an_open_nat_is_known_after_two_round_trips() -> None:
    network = Network(Nat(hairpins=True))
    started = network.now

    network.probe()

    assert network.now - started <= 4 * ONE_WAY_S + 0.001


# The machine, event by event -------------------------------------------------------------------------

LOCAL: dict[ProbeSocket, Endpoint] = {
    name: Endpoint("10.0.0.5", 40_000 + number) for number, name in enumerate(PROBE_SOCKETS)
}
NOW = 50.0


class Script:
    """A probe, and what it wants sent: (socket, to, change address, change port)."""

    def __init__(self) -> None:
        self.probe = NatProbe(FIRST, LOCAL, random_bytes=random.Random(1).randbytes, now=NOW)
        self.commands: list[SendDatagram] = []

    def polled(self) -> list[tuple[str, Endpoint, bool, bool]]:
        polled = []
        while (command := self.probe.poll_command()) is not None:
            self.commands.append(command)
            request = decode(command.data)
            assert isinstance(request, BindingRequest)
            polled.append((command.socket, command.to, request.change_address, request.change_port))
        return polled

    def sent(self, number: int) -> BindingRequest:
        request = decode(self.commands[number].data)
        assert isinstance(request, BindingRequest)
        return request

    def answer(
        self, number: int, *, source: Endpoint = FIRST, other: Endpoint | None = OTHER, port: int = 61_000
    ) -> None:
        """The request that was sent as the *number*-th is answered."""
        answer = BindingAnswer(
            transaction=self.sent(number).transaction, mapped=Endpoint(OUTSIDE, port), other=other
        )
        self.probe.handle_datagram(self.commands[number].socket, encode(answer), source, NOW)

    def finished(self) -> NatBehaviour:
        """Nothing more comes."""
        while (deadline := self.probe.next_deadline()) is not None:
            self.probe.handle_tick(deadline)
        assert self.probe.behaviour is not None
        return self.probe.behaviour


def test_it_asks_from_each_socket_then_elsewhere_and_lets_two_sockets_call_each_other() -> None:
    script = Script()
    assert script.polled() == [(socket, FIRST, False, False) for socket in PROBE_SOCKETS]

    script.answer(0, port=61_000)
    assert script.polled() == [("mapping", OTHER_PORT, False, False), ("mapping", OTHER, False, False)]

    script.answer(1, port=61_001)
    assert script.polled() == [("filtering", FIRST, False, True), ("filtering", FIRST, True, True)]

    script.answer(2, port=61_002)
    assert script.polled() == [
        ("mapping", Endpoint(OUTSIDE, 61_002), False, False),
        ("hairpin", Endpoint(OUTSIDE, 61_000), False, False),
    ]


def test_the_filtering_sockets_answer_starts_no_second_call() -> None:
    script = Script()
    script.polled()
    script.answer(0)
    script.answer(2)
    script.polled()
    script.answer(1)

    assert script.polled() == [("filtering", FIRST, False, True), ("filtering", FIRST, True, True)]


def test_a_gateway_whose_other_address_has_the_same_port_shows_no_dependence_on_ports() -> None:
    script = Script()
    script.polled()
    script.answer(0, other=Endpoint(OTHER.host, FIRST.port))

    assert script.polled() == [("mapping", Endpoint(OTHER.host, FIRST.port), False, False)]


@pytest.mark.parametrize(("arrives_at", "hairpinning"), [("hairpin", True), ("mapping", False)])
def test_a_call_is_hairpinned_if_it_arrives_at_the_other_socket(
    arrives_at: ProbeSocket, hairpinning: bool
) -> None:
    script = Script()
    script.polled()
    for number in range(3):
        script.answer(number, other=None)
    script.polled()
    call = script.commands[3]
    assert call.socket == "mapping"
    script.probe.handle_datagram(arrives_at, call.data, Endpoint(OUTSIDE, 61_000), NOW)

    assert script.finished().hairpinning == hairpinning


def test_one_difference_proves_that_a_mapping_depends_on_the_port() -> None:
    script = Script()
    script.polled()
    script.answer(0)
    script.polled()
    script.answer(3, source=OTHER_PORT, port=62_000)
    script.answer(4, source=OTHER, port=61_000)  # the same again, by chance

    assert script.finished().mapping == ("address-and-port-dependent",)


def test_an_answer_from_another_port_only_does_not_pass_for_one_from_another_address() -> None:
    script = Script()
    script.polled()
    script.answer(1)
    script.polled()
    script.answer(4, source=OTHER_PORT)  # asked to change both
    script.answer(3, source=OTHER_PORT)

    assert script.finished().filtering == ("address-dependent",)


def test_the_outside_endpoint_of_any_socket_shows_that_udp_works() -> None:
    script = Script()
    script.polled()
    script.answer(1, other=None)
    behaviour = script.finished()

    assert behaviour.udp
    assert (behaviour.local, behaviour.mapped) == (LOCAL["filtering"], Endpoint(OUTSIDE, 61_000))


def test_a_request_is_repeated_as_the_specification_says_and_then_given_up() -> None:
    script = Script()
    script.polled()
    times = []
    while (deadline := script.probe.next_deadline()) is not None:
        times.append(deadline - NOW)
        script.probe.handle_tick(deadline)
        assert len(script.polled()) == (3 if len(times) < 4 else 0)

    assert times == [0.5, 1.5, 3.5, 4.5]
    assert script.probe.behaviour == NatBehaviour(gateway=FIRST, local=LOCAL["mapping"])


def test_an_answer_counts_once() -> None:
    script = Script()
    script.polled()
    script.answer(0)
    first = script.polled()
    script.answer(0, port=1)

    assert first
    assert script.polled() == []


@pytest.mark.parametrize(
    "other",
    [
        None,
        Endpoint("224.0.0.1", 3479),
        Endpoint("0.0.0.0", 3479),
        Endpoint("127.0.0.1", 3479),
        Endpoint("2001:db8::1", 3479),
        Endpoint("198.51.100.2", 0),
    ],
)
def test_without_a_usable_other_address_only_the_outside_endpoint_is_known(other: Endpoint | None) -> None:
    script = Script()
    script.polled()
    script.answer(0, other=other)

    assert script.polled() == []


def test_an_answer_that_comes_from_elsewhere_or_at_another_socket_is_none() -> None:
    script = Script()
    script.polled()
    answer = BindingAnswer(transaction=script.sent(0).transaction, mapped=FIRST, other=OTHER)
    script.probe.handle_datagram("mapping", encode(answer), OTHER, NOW)
    script.probe.handle_datagram("filtering", encode(answer), FIRST, NOW)

    assert script.polled() == []


def test_a_socket_that_does_not_exist_is_our_mistake() -> None:
    with pytest.raises(UsageError):
        Script().probe.handle_datagram("other", b"", FIRST, NOW)  # type: ignore[arg-type]


def test_sockets_must_be_bound_to_an_address() -> None:
    with pytest.raises(UsageError):
        NatProbe(
            FIRST,
            {**LOCAL, "mapping": Endpoint("0.0.0.0", 1)},
            random_bytes=random.Random(1).randbytes,
            now=NOW,
        )


@given(data=st.binary(max_size=120), socket=st.sampled_from(PROBE_SOCKETS), mix=st.booleans())
def test_nothing_that_strangers_send_changes_anything(data: bytes, socket: ProbeSocket, mix: bool) -> None:
    script = Script()
    script.polled()
    header = encode(BindingAnswer(transaction=bytes(12), mapped=FIRST, other=OTHER))
    script.probe.handle_datagram(socket, header + data if mix else data, FIRST, NOW)

    assert script.polled() == []
    assert script.probe.behaviour is None


# Gateways that are not as they should be --------------------------------------------------------------


def test_a_gateway_that_does_not_change_its_address_shows_no_filtering() -> None:
    def stubborn(data: bytes, source: Endpoint, local: Endpoint) -> list[tuple[bytes, Endpoint]]:
        transaction = decode(data).transaction
        return [(encode(BindingAnswer(transaction=transaction, mapped=source, other=OTHER)), local)]

    behaviour = Network(Nat(), respond=stubborn).probe()

    assert behaviour.mapping == ("endpoint-independent",)
    assert behaviour.filtering == DEPENDENCES


def test_a_gateway_that_refuses_to_change_its_address_shows_no_filtering() -> None:
    def refusing(data: bytes, source: Endpoint, local: Endpoint) -> list[tuple[bytes, Endpoint]]:
        request = decode(data)
        assert isinstance(request, BindingRequest)
        transaction = request.transaction
        if request.change_port:
            return [(encode(BindingError(transaction=transaction, code=420, unknown=(3,))), local)]
        return [(encode(BindingAnswer(transaction=transaction, mapped=source, other=OTHER)), local)]

    started = (network := Network(Nat(hairpins=True), respond=refusing)).now
    behaviour = network.probe()

    assert behaviour.mapping == ("endpoint-independent",)
    assert behaviour.filtering == DEPENDENCES
    assert network.now - started < 1


def test_a_gateway_that_lies_about_endpoints_costs_a_bounded_number_of_packets() -> None:
    rng = random.Random(3)

    def lying(data: bytes, source: Endpoint, local: Endpoint) -> list[tuple[bytes, Endpoint]]:
        invented = [Endpoint(f"203.0.113.{rng.randint(1, 254)}", rng.randint(1, 65535)) for _ in range(2)]
        transaction = decode(data).transaction
        answer = BindingAnswer(transaction=transaction, mapped=invented[0], other=invented[1])
        return [(encode(answer), local)] * 5

    network = Network(Nat(), respond=lying)
    network.probe()

    assert network.sent <= 9 * limits.PROBE_REQUESTS_MAX
