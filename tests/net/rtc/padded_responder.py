"""A STUN responder as our gateways are: it answers no request with more bytes than it had.

padded_responder.py HOST PORT
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from aioice import stun


class Responder:
    """A STUN responder that answers no request with more bytes than it had."""

    def __init__(self, sock: trio.socket.SocketType, claim: tuple[str, int] | None) -> None:
        self.socket = sock
        self.address: tuple[str, int] = sock.getsockname()[:2]
        self.claim = claim
        self.sizes: list[int] = []

    async def run(self) -> None:
        while True:
            data, sender = await self.socket.recvfrom(2048)
            request = stun.parse_message(data)
            response = stun.Message(
                message_method=stun.Method.BINDING,
                message_class=stun.Class.RESPONSE,
                transaction_id=request.transaction_id,
                attributes={"XOR-MAPPED-ADDRESS": self.claim or sender[:2]},
            )
            response.add_fingerprint()
            self.sizes.append(len(data))
            if len(bytes(response)) <= len(data):
                await self.socket.sendto(bytes(response), sender)


@asynccontextmanager
async def open_responder(
    host: str, claim: tuple[str, int] | None = None, port: int = 0
) -> AsyncIterator[Responder]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        await sock.bind((host, port))
        responder = Responder(sock, claim)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(responder.run)
            yield responder
            nursery.cancel_scope.cancel()


async def main(host: str, port: str) -> None:
    async with open_responder(host, port=int(port)):
        print("ready", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
