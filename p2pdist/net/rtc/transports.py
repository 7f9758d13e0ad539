"""aiortc's DTLS and SCTP transports, without its media half.

``import aiortc`` also imports codecs and PyAV, 18 MB of memory that a data channel never uses. So the
package's own ``__init__`` is not run here, and the one name that a needed module takes from PyAV, for an
annotation, is a stand-in. Both are gone again afterwards: ``import aiortc`` elsewhere gets all of it.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import cast

from p2pdist.omitted import omitted

_AIORTC = module_from_spec(cast(ModuleSpec, find_spec("aiortc")))
_AV = ModuleType("av")
_AV.AudioFrame = object  # type: ignore[attr-defined]
with omitted({"aiortc": _AIORTC, "av": _AV}):
    from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
    from aiortc.rtcdtlstransport import (
        RTCCertificate,
        RTCDtlsFingerprint,
        RTCDtlsParameters,
        RTCDtlsTransport,
    )
    from aiortc.rtcicetransport import RTCIceTransport
    from aiortc.rtcsctptransport import (
        WEBRTC_BINARY,
        DataChunk,
        ForwardTsnChunk,
        HeartbeatChunk,
        RTCSctpCapabilities,
        RTCSctpTransport,
        SackChunk,
    )

__all__ = [
    "WEBRTC_BINARY",
    "DataChunk",
    "ForwardTsnChunk",
    "HeartbeatChunk",
    "RTCCertificate",
    "RTCDataChannel",
    "RTCDataChannelParameters",
    "RTCDtlsFingerprint",
    "RTCDtlsParameters",
    "RTCDtlsTransport",
    "RTCIceTransport",
    "RTCSctpCapabilities",
    "RTCSctpTransport",
    "SackChunk",
]
