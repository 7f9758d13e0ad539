"""Loopback addresses that no other test on this machine uses."""

from __future__ import annotations

import os
import socket
from types import TracebackType


class AddressRange:
    """A /24 of 127.0.0.0/8, claimed for as long as the block runs.

    The claim is an abstract Unix socket: the kernel drops it when the process dies, however it dies.
    """

    def __enter__(self) -> AddressRange:
        """Claim the first free range, starting at one that differs from process to process."""
        first = os.getpid() * 7919
        for step in range(60_000):
            second, third = divmod((first + step) % 60_000, 250)
            prefix = f"127.{second % 240 + 10}.{third + 1}"
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                claim.bind(f"\0p2pdist-test-{prefix}")
            except OSError:
                claim.close()
                continue
            self._claim, self._prefix = claim, prefix
            return self
        raise AssertionError("every loopback range is in use")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claim.close()

    def host(self, number: int) -> str:
        """Return an address of the range."""
        return f"{self._prefix}.{number}"


def free_port(host: str) -> int:
    """Return a port that nobody has on *host*. As *host* is ours alone, it stays free until we use it."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
