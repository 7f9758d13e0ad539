"""aiortc is loaded by the first path and not before, and never with its media half."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # processes that load the whole library

BEFORE = "import p2pdist.net.rtc.punch, p2pdist.net.rtc.stream"
WITH_A_PATH = f"{BEFORE}, p2pdist.net.rtc.path"
AND_LATER = f"{WITH_A_PATH}; import aiortc; aiortc.RTCPeerConnection; import av; av.AudioFrame.from_ndarray"


def loaded_by(code: str) -> set[str]:
    code = f"{code}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_nothing_of_it_is_loaded_before_the_first_path() -> None:
    assert not {"aiortc", "aioice", "av", "pylibsrtp", "OpenSSL"} & loaded_by(BEFORE)


def test_a_path_loads_the_transports_and_no_media() -> None:
    loaded = loaded_by(WITH_A_PATH)
    assert "aiortc.rtcsctptransport" in loaded
    assert not {"aiortc", "av", "aiortc.rtcpeerconnection", "aiortc.codecs"} & loaded


def test_whoever_wants_all_of_it_afterwards_gets_it() -> None:
    assert {"aiortc", "av", "aiortc.rtcpeerconnection"} <= loaded_by(AND_LATER)
