"""Whatever bytes arrive, at a socket or inside the encryption, raise nothing and stay bounded."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from typing import Any, cast

from aioice import stun
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import PeerError
from p2pdist.net.rtc.ice import IceConnection
from p2pdist.net.rtc.sctp import Association

attributes = st.lists(
    st.tuples(st.sampled_from([*stun.ATTRIBUTES_BY_TYPE, 0x0026, 0xFFFF]), st.binary(max_size=40)), max_size=6
)
kinds = st.sampled_from([0x0001, 0x0011, 0x0101, 0x0111]) | st.integers(0, 0x3FFF)


def stun_packet(kind: int, pairs: list[tuple[int, bytes]]) -> bytes:
    body = b"".join(
        struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4) for number, value in pairs
    )
    return struct.pack("!HHI12s", kind, len(body), stun.COOKIE, b"transaction.") + body


class Recorder:
    """Stands where a socket's transport does, and notes what would be sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendto(self, data: bytes, address: Any) -> None:
        self.sent.append(data)


@settings(max_examples=30)
@given(st.lists(st.tuples(kinds, attributes, st.binary(max_size=40)), max_size=30))
def test_a_strangers_datagrams_raise_nothing_and_get_no_answer(
    packets: list[tuple[int, list[tuple[int, bytes]], bytes]],
) -> None:
    async def throw() -> None:
        connection = IceConnection(controlling=True, hosts=["127.0.0.1"], stun_servers=[])
        await connection.gather_candidates()
        (protocol,) = connection._protocols
        transport, recorder = protocol.transport, Recorder()
        protocol.transport = cast(Any, recorder)
        for kind, pairs, raw in packets:
            protocol.datagram_received(stun_packet(kind, pairs), ("192.0.2.9", 9))
            protocol.datagram_received(raw, ("192.0.2.9", 9))
        protocol.transport = transport
        await connection.close()
        assert recorder.sent == []
        assert connection._queue.qsize() <= 1, "nothing but the note of the end"

    asyncio.run(throw())


class Line:
    """Stands where DTLS does."""

    state = "connected"
    _role = "client"

    async def _send_data(self, data: bytes) -> None:
        pass

    def _register_data_receiver(self, receiver: Any) -> None:
        pass


chunk_types = st.sampled_from([*range(16), 130, 192]) | st.integers(0, 255)
chunks = st.lists(st.tuples(chunk_types, st.integers(0, 7), st.binary(max_size=60)), max_size=12)


@settings(max_examples=60)
@given(st.lists(chunks, max_size=8))
def test_any_sctp_packet_is_taken_or_is_the_peers_fault(packets: list[list[tuple[int, int, bytes]]]) -> None:
    faults: list[PeerError] = []

    async def throw() -> None:
        association = Association(cast(Any, Line()), faults.append)
        association.open_channel()
        with suppress(ConnectionError):
            await association.start(association.getCapabilities(), 5000)
        for packet in packets:
            await association._handle_data(sctp_packet(association._local_verification_tag, packet))
        assert len(association._get_inbound_stream(0).reassembly) <= limits.PUNCH_REASSEMBLY_CHUNKS_MAX
        assert set(association._data_channels) <= {0}
        for handle in (association._t1_handle, association._t2_handle, association._t3_handle):
            if handle is not None:
                handle.cancel()

    asyncio.run(throw())


def sctp_packet(tag: int, parts: list[tuple[int, int, bytes]]) -> bytes:
    if any(kind == 1 for kind, _, _ in parts):
        tag = 0  # an INIT has none (RFC 9260, section 8.5.1)
    body = b"".join(
        struct.pack("!BBH", kind, flags, len(content) + 4) + content + bytes(-len(content) % 4)
        for kind, flags, content in parts
    )
    head = struct.pack("!HHL", 5000, 5000, tag)
    return head + struct.pack("<L", crc32c(head + bytes(4) + body)) + body
