"""ICE as we use it: padded questions to the STUN server, and nothing for strangers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from aioice import stun
from padded_responder import open_responder

from p2pdist import limits
from p2pdist.net.rtc.description import Candidate, Description, parse_description
from p2pdist.net.rtc.ice import IceConnection
from p2pdist.net.rtc.island import Island
from p2pdist.net.rtc.punch import callable_candidates, open_punched
from p2pdist.net.rtc.stream import PunchedStream


class Answered(Exception):
    """Carries the first description out of an attempt, and ends it."""


async def gathered(island: Island, hosts: Sequence[str], servers: Sequence[tuple[str, int]]) -> Description:
    """Return how we would describe ourselves."""
    said: list[bytes] = []

    async def exchange(ours: bytes) -> bytes:
        said.append(ours)
        raise Answered

    with pytest.raises(Answered):
        await open_punched(island, exchange, controlling=True, hosts=hosts, stun_servers=servers)
    return parse_description(said[0], expected="controlling")


@pytest.mark.parametrize(("host", "claim"), [("127.0.0.1", "203.0.113.5"), ("::1", "2001:db8::5")])
async def test_a_responder_that_never_answers_more_than_it_got_is_asked_with_enough(
    island: Island, host: str, claim: str
) -> None:
    async with open_responder(host, (claim, 4242)) as responder:
        description = await gathered(island, [host], [responder.address])
    assert Candidate(kind="srflx", host=claim, port=4242) in description.candidates
    assert responder.sizes == [limits.PUNCH_STUN_BYTES]


async def test_an_address_that_no_nat_changes_is_named_once(island: Island) -> None:
    async with open_responder("127.0.0.1") as responder:
        description = await gathered(island, ["127.0.0.1"], [responder.address])
    assert [candidate.kind for candidate in description.candidates] == ["host"]


@pytest.mark.parametrize("claim", [("224.0.0.1", 4242), ("0.0.0.0", 4242), ("203.0.113.5", 0)])
async def test_a_server_that_makes_up_impossible_addresses_is_not_believed(
    island: Island, claim: tuple[str, int]
) -> None:
    async with open_responder("127.0.0.1", claim) as responder:
        description = await gathered(island, ["127.0.0.1"], [responder.address])
    assert [candidate.kind for candidate in description.candidates] == ["host"]


@pytest.mark.slow
async def test_a_silent_server_costs_a_bounded_time(island: Island) -> None:
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        await silent.bind(("127.0.0.1", 0))
        with trio.fail_after(limits.PUNCH_GATHER_S + 1):
            description = await gathered(island, ["127.0.0.1"], [silent.getsockname()])
    assert [candidate.kind for candidate in description.candidates] == ["host"]


async def test_a_server_of_the_other_family_is_not_asked(island: Island) -> None:
    async with open_responder("::1") as responder:
        await gathered(island, ["127.0.0.1"], [responder.address])
    assert responder.sizes == []


async def test_a_stranger_gets_no_answer_and_its_packets_do_no_harm(island: Island, meeting: Any) -> None:
    """Whatever a stranger throws at the socket, before and while the two connect."""
    unsigned = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    wrong = stun.Message(
        message_method=stun.Method.BINDING,
        message_class=stun.Class.REQUEST,
        attributes={"USERNAME": "abcd:efgh", "PRIORITY": 1, "ICE-CONTROLLED": 2},
    )
    wrong.add_message_integrity(b"guessed")
    malformed = bytes(unsigned)[:2] + b"\x00\x08" + bytes(unsigned)[4:] + b"\x00\x24\x00\x01k\x00\x00\x00"
    alert = bytes.fromhex("15fefd000000000000000000020228")
    packets = [b"", b"k", bytes(unsigned), bytes(wrong), malformed, alert, b"\x16\xfe\xfd" + bytes(40)]
    streams: dict[bool, PunchedStream] = {}
    ports: list[int] = []

    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        await stranger.bind(("127.0.0.1", 0))

        async def throw() -> None:
            for port in ports:
                for packet in packets:
                    await stranger.sendto(packet, ("127.0.0.1", port))

        async def punch(controlling: bool) -> None:
            async def exchange(ours: bytes) -> bytes:
                described = parse_description(ours, expected="controlling" if controlling else "controlled")
                ports.append(described.candidates[0].port)
                for _ in range(20):
                    await throw()
                return await meeting.exchange(ours)  # type: ignore[no-any-return]

            streams[controlling] = await open_punched(
                island, exchange, controlling=controlling, hosts=["127.0.0.1"]
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(punch, True)
            nursery.start_soon(punch, False)
            while len(streams) < 2:
                await throw()
                await trio.sleep(0.001)
        await throw()
        async with streams[True], streams[False]:
            await streams[True].send_all(b"hello")
            assert await streams[False].receive_some() == b"hello"
        with trio.move_on_after(0.1):
            answer = await stranger.recv(2048)
            raise AssertionError(f"a stranger was answered: {answer.hex()}")


def test_a_check_that_met_a_closed_nat_is_repeated_as_soon_as_the_other_side_calls() -> None:
    """RFC 8445, 7.3.1.4. Otherwise it would be repeated by its timer: the same transaction, much later."""

    async def connect() -> Sequence[bytes]:
        early, late = (
            IceConnection(controlling=controlling, hosts=["127.0.0.1"], stun_servers=[])
            for controlling in (True, False)
        )
        for side in (early, late):
            await side.gather_candidates()
        for side, other in ((early, late), (late, early)):
            side.remote_username, side.remote_password = other.local_username, other.local_password
            for candidate in other.local_candidates:
                await side.add_remote_candidate(candidate)
            await side.add_remote_candidate(None)
        calls: list[bytes] = []
        (nat,), (own,) = late._protocols, early._protocols
        send, take = own.send_stun, nat.datagram_received

        def note(message: stun.Message, addr: tuple[str, int]) -> None:
            if message.message_class == stun.Class.REQUEST:
                calls.append(message.transaction_id)
            send(message, addr)

        met_the_nat = asyncio.Event()
        own.send_stun = note  # type: ignore[method-assign]
        nat.datagram_received = lambda data, addr: met_the_nat.set()  # type: ignore[method-assign]
        calling = asyncio.ensure_future(early.connect())
        await met_the_nat.wait()
        nat.datagram_received = take  # type: ignore[method-assign]
        await asyncio.gather(calling, late.connect())
        await asyncio.gather(early.close(), late.close())
        return calls

    first, second = asyncio.run(connect())[:2]
    assert first != second


def test_a_peer_cannot_make_us_call_services_of_our_own_machine() -> None:
    loopback, outside = (Candidate(kind="host", host=host, port=7) for host in ("127.0.0.1", "192.0.2.1"))
    assert callable_candidates([loopback, outside], ours=[outside]) == (outside,)
    assert callable_candidates([loopback, outside], ours=[loopback]) == (loopback, outside)
