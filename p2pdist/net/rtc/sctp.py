"""SCTP by aiortc, bounded: a peer that breaks the protocol costs itself the path, and nobody memory.

aiortc keeps whatever arrives until a message is whole, believes any acknowledgement, opens any channel
that the other side wants, and lets its congestion window grow without end. An exception that a packet
provokes stops its DTLS pump while everything still looks connected. Here each of these is a fault that
ends the path.
"""

from __future__ import annotations

from collections.abc import Callable

from p2pdist import limits
from p2pdist.errors import PeerError
from p2pdist.net.rtc.transports import (
    WEBRTC_BINARY,
    DataChunk,
    ForwardTsnChunk,
    HeartbeatChunk,
    RTCDataChannel,
    RTCDataChannelParameters,
    RTCDtlsTransport,
    RTCSctpTransport,
    SackChunk,
)

_STREAM = 0
_HEARTBEAT_INFO = (1, b"p2pd")  # RFC 9260, section 3.3.5: the sender's own information, echoed


class Association(RTCSctpTransport):
    """An SCTP association for one data channel.

    Args:
        dtls: What it runs over.
        fault: Called, perhaps repeatedly, when the other side breaks the protocol.

    Attributes:
        heard: Whether anything has come since this was last set to False.
    """

    def __init__(self, dtls: RTCDtlsTransport, fault: Callable[[PeerError], None]) -> None:
        super().__init__(dtls)
        self._fault = fault
        self._when_drained: Callable[[], None] | None = None
        self.heard = True

    def open_channel(self) -> RTCDataChannel:
        """Return the channel that both sides have agreed on without a word (RFC 8831, section 6.4)."""
        return RTCDataChannel(
            self, RTCDataChannelParameters(label="session", negotiated=True, id=_STREAM, ordered=True)
        )

    @property
    def acknowledged(self) -> int:
        """The last transmission number that has arrived with all before it."""
        return int(self._last_sacked_tsn)

    def when_drained(self, then: Callable[[], None]) -> None:
        """Call *then* as soon as everything that was sent has arrived."""
        self._when_drained = then
        self._look_whether_drained()

    async def pulse(self) -> None:
        """Give a sign of life that the other side answers (RFC 9260, section 8.3).

        It is a packet of its own: it does not wait behind content, and its loss holds up nothing.
        """
        heartbeat = HeartbeatChunk()
        heartbeat.params.append(_HEARTBEAT_INFO)
        await self._send_chunk(heartbeat)

    async def _handle_data(self, data: bytes) -> None:
        self.heard = True
        try:
            await super()._handle_data(data)
        except ConnectionError:
            raise  # ICE has closed: the pump's own way to end
        except Exception as error:  # noqa: BLE001 - this connection's handler; the pump must never see it
            self._fault(PeerError(f"an SCTP packet makes no sense ({type(error).__name__})"))

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        unfinished = self._get_inbound_stream(_STREAM).reassembly
        if chunk.stream_id != _STREAM:
            self._fault(PeerError(f"data came on SCTP stream {chunk.stream_id}, which was not agreed on"))
        elif len(unfinished) >= limits.PUNCH_REASSEMBLY_CHUNKS_MAX or self._advertised_rwnd < 0:
            self._fault(PeerError("more unfinished messages came than there is credit for"))
        else:
            await super()._receive_data_chunk(chunk)

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        acknowledged = sum(max(0, last - first + 1) for first, last in chunk.gaps)
        if acknowledged > len(self._sent_queue) and not self._is_old(chunk):
            self._fault(PeerError("an acknowledgement came for what was never sent"))
            return
        await super()._receive_sack_chunk(chunk)
        self._cwnd = min(self._cwnd, limits.PUNCH_CONGESTION_BYTES)
        self._look_whether_drained()

    async def _receive_forward_tsn_chunk(self, chunk: ForwardTsnChunk) -> None:
        self._fault(PeerError("the other side gave up data of a reliable channel"))

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if pp_id == WEBRTC_BINARY:
            await super()._receive(stream_id, pp_id, data)
        else:
            self._fault(PeerError(f"a message of protocol {pp_id} came where only binary ones are"))

    def _look_whether_drained(self) -> None:
        if self._when_drained and not (self._data_channel_queue or self._outbound_queue or self._sent_queue):
            self._when_drained()

    def _is_old(self, chunk: SackChunk) -> bool:
        """Whether a newer acknowledgement has overtaken it: it speaks of chunks that are settled."""
        return bool(0 < (self._last_sacked_tsn - chunk.cumulative_tsn) % 2**32 < 2**31)
