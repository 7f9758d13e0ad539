"""A session with a device that is held open on a host of a laboratory, by ``hold_session.py``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab_fleet import LabFleet
from laboratory.network import Host

_PROGRAM = Path(__file__).with_name("hold_session.py")


class HeldSession:
    """A session that is held open; numbers go there and back. Made by :func:`hold_session`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def until(self, path: str, within_s: float = 40.0) -> None:
        """Wait until the session is on a path of this kind."""
        assert self._process.stdout is not None
        end = time.monotonic() + within_s
        while line := self._process.stdout.readline():
            said = json.loads(line)
            assert time.monotonic() < end, f"{path}: not within {within_s:g} s"
            if said["path"] == path:
                return
        raise AssertionError(f"the session ended before it was {path}")

    def finish(self) -> Any:
        """End the session, and return what it says of its bytes."""
        out, _ = self._process.communicate("", timeout=90)
        return json.loads(out.splitlines()[-1])


@contextmanager
def hold_session(fleet: LabFleet, host: Host, device: str, *, bytes_min: int = 0) -> Iterator[HeldSession]:
    """Hold a session with a device open on an operator's host; it does not finish before so many bytes."""
    with subprocess.Popen(
        host.command(sys.executable, str(_PROGRAM), device, str(bytes_min)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=fleet.environment,
    ) as process:
        try:
            yield HeldSession(process)
        finally:
            process.kill()
