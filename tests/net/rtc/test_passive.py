"""A side that may begin nothing: it is called, and answers on the way that it was called."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from aioice import stun
from padded_responder import open_responder

from p2pdist.net.rtc.description import Candidate, Description, encode_description, parse_description
from p2pdist.net.rtc.island import Island
from p2pdist.net.rtc.punch import open_punched
from p2pdist.net.rtc.report import PunchFailed, PunchReport
from p2pdist.net.rtc.stream import PunchedStream

pytestmark = pytest.mark.slow  # connections that take their time

HERE = ["127.0.0.1"]


class Silent:
    """A socket at which nobody may call."""

    def __init__(self, udp: trio.socket.SocketType) -> None:
        self.udp = udp
        self.address: tuple[str, int] = udp.getsockname()
        self.candidate = Candidate(kind="host", host=self.address[0], port=self.address[1])

    async def throw(self, at: Candidate) -> None:
        """Send checks without the credentials, and what is none."""
        unsigned = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.REQUEST,
            attributes={"USERNAME": "abcd:efgh", "PRIORITY": 1, "ICE-CONTROLLING": 2},
        )
        signed = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.REQUEST,
            attributes=dict(unsigned.attributes),
        )
        signed.add_message_integrity(b"guessed")
        for packet in (bytes(unsigned), bytes(signed), b"\x16\xfe\xfd" + bytes(40)):
            await self.udp.sendto(packet, (at.host, at.port))

    async def heard(self) -> list[bytes]:
        """Return what came."""
        packets = []
        with trio.move_on_after(0.05):
            while True:
                packets.append((await self.udp.recvfrom(2048))[0])
        return packets


@pytest.fixture
async def silent() -> Any:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as udp:
        await udp.bind(("127.0.0.1", 0))
        yield Silent(udp)


@pytest.mark.parametrize("controlling", [False, True])
async def test_it_connects_with_a_side_that_calls_and_both_see_the_same_pair(
    island: Island, meeting: Any, controlling: bool
) -> None:
    streams: dict[bool, PunchedStream] = {}

    async def punch(passive: bool) -> None:
        streams[passive] = await open_punched(
            island, meeting.exchange, controlling=passive is controlling, hosts=HERE, passive=passive
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(punch, True)
        nursery.start_soon(punch, False)
    async with streams[True] as called, streams[False] as calling:
        await calling.send_all(b"hello")
        assert await called.receive_some() == b"hello"
        await called.send_all(b"welcome")
        assert await calling.receive_some() == b"welcome"
    assert calling.report.pair is not None
    ours, theirs = calling.report.pair
    assert called.report.pair == (theirs, ours)
    assert (ours.kind, theirs.kind) == ("host", "host")


async def test_it_is_called_at_one_of_the_ports_that_it_was_given_and_is_free(
    island: Island, silent: Silent
) -> None:
    _, taken = silent.address
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as udp:
        await udp.bind(("127.0.0.1", 0))
        free: int = udp.getsockname()[1]
    offered, _ = await lonely(island, silent, ports=[taken, free])
    assert [candidate.port for candidate in offered.candidates] == [free]


async def test_it_takes_no_other_port_when_all_are_taken(island: Island, silent: Silent) -> None:
    async def exchange(_: bytes) -> bytes:
        raise AssertionError("it has nothing to offer")

    with pytest.raises(PunchFailed, match="no free port"):
        await open_punched(
            island, exchange, controlling=False, hosts=HERE, passive=True, ports=[silent.address[1]]
        )


async def test_it_asks_no_server_and_offers_its_own_addresses_at_once(island: Island, silent: Silent) -> None:
    async with open_responder("127.0.0.1", ("203.0.113.5", 4242)) as responder:
        candidates = (await lonely(island, silent, servers=[responder.address]))[0].candidates
    assert [(candidate.kind, candidate.host) for candidate in candidates] == [("host", "127.0.0.1")]
    assert responder.sizes == []


async def test_it_calls_nobody_who_is_named_and_tells_that_nobody_called(
    island: Island, silent: Silent
) -> None:
    _, report = await lonely(island, silent)
    assert await silent.heard() == []
    assert "no pair of addresses let packets through" in report.failure
    assert [str(candidate) for candidate in report.remote] == [f"127.0.0.1:{silent.candidate.port} (host)"]


async def test_a_call_without_the_credentials_is_none(island: Island, silent: Silent) -> None:
    await lonely(island, silent, strangers=True)
    assert await silent.heard() == []


async def lonely(
    island: Island, silent: Silent, *, servers: Any = (), ports: Any = (0,), strangers: bool = False
) -> tuple[Description, PunchReport]:
    """Let a passive side wait for somebody who never calls; return what it said, and how that went."""
    said: list[Description] = []

    async def exchange(ours: bytes) -> bytes:
        said.append(parse_description(ours, expected="controlled"))
        if strangers:
            await silent.throw(said[0].candidates[0])
        return encode_description(
            Description(
                role="controlling",
                username="abcd",
                password="p" * 22,
                fingerprint=bytes(32),
                candidates=(silent.candidate,),
            )
        )

    with pytest.raises(PunchFailed) as failed:
        await open_punched(
            island,
            exchange,
            controlling=False,
            hosts=HERE,
            stun_servers=servers,
            passive=True,
            ports=ports,
            limit_s=0.4,
        )
    return said[0], failed.value.report


async def test_of_the_addresses_that_are_named_it_calls_the_one_that_called(
    island: Island, meeting: Any, silent: Silent
) -> None:
    """The other side names one more than it calls from."""
    streams: dict[bool, PunchedStream] = {}

    async def naming_one_more(ours: bytes) -> bytes:
        described = parse_description(ours, expected="controlling")
        more = Description(
            role=described.role,
            username=described.username,
            password=described.password,
            fingerprint=described.fingerprint,
            candidates=(silent.candidate, *described.candidates),
        )
        answer: bytes = await meeting.exchange(encode_description(more))
        return answer

    async def punch(passive: bool) -> None:
        exchange = meeting.exchange if passive else naming_one_more
        streams[passive] = await open_punched(
            island, exchange, controlling=not passive, hosts=HERE, passive=passive
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(punch, True)
        nursery.start_soon(punch, False)
    async with streams[True] as called, streams[False]:
        assert [pair.remote.port for pair in called.report.pairs] == [called.report.pairs[0].remote.port]
        assert called.report.pairs[0].remote.port != silent.candidate.port
    assert await silent.heard() == []
