"""A mailbox as a program that is really killed: run by test_mailbox_kill.py.

It takes envelopes in as fast as it can and passes some of them on, and says on its output what happened,
one line each, before anything can depend on it::

    accepted COUNTER...   the sender has a receipt for these
    passed COUNTER        the next hop has this one, and will give a receipt
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import structlog
import trio

from p2pdist.ids import NodeId
from p2pdist.net.mailbox import Hop, open_mailbox
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import AnyFrame, Routed, Taken

SERVER = NodeId("s" * 32)
SENDERS = [NodeId(letter * 32) for letter in "abcdefgh"]


def say(*words: object) -> None:
    """Write one line, all of it or nothing."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Outlet:
    """A neighbour that handles its frames when it gets around to them."""

    def __init__(self, handle: Callable[[AnyFrame], None]) -> None:
        self.send_nowait = handle


async def main(path: Path, first: int, seed: int) -> None:
    """Work until the end comes."""
    rng = random.Random(seed)
    sent: dict[NodeId, list[int]] = {sender: [] for sender in SENDERS}
    above: Hop
    passed = 0

    def from_gateway(sender: NodeId) -> Callable[[AnyFrame], None]:
        told = 0

        def handle(frame: AnyFrame) -> None:
            nonlocal told
            assert isinstance(frame, Taken)
            numbers = [n for n in range(told + 1, frame.count + 1) if n not in frame.refused]
            told = frame.count
            say("accepted", *(sent[sender][number - 1] for number in numbers))

        return handle

    def to_server(frame: AnyFrame) -> None:
        nonlocal passed
        assert isinstance(frame, Routed)
        passed += 1
        say("passed", frame.envelope.counter)

    async with open_mailbox(path, way=lambda node: node) as mailbox, trio.open_nursery() as nursery:
        links = ExitStack()
        nursery.start_soon(mailbox.run)
        hops = {}
        for sender in SENDERS:
            hops[sender] = links.enter_context(mailbox.hop(sender, Outlet(from_gateway(sender))))
        if seed % 3:  # else the next hop is away
            above = links.enter_context(mailbox.hop(SERVER, Outlet(to_server)))
            mailbox.look(SERVER)
        say("ready")
        for counter in range(first, first + 100_000):
            sender = rng.choice(SENDERS)
            sent[sender].append(counter)
            await hops[sender].receive(
                Envelope(
                    sender=sender,
                    recipient=SERVER,
                    counter=counter,
                    expires=int(time.time()) + 3_600,
                    box=bytes(rng.choice([40, 400, 4_000])),
                )
            )
            if rng.random() < 0.1:
                await trio.sleep(rng.random() * 0.01)
            if passed and rng.random() < 0.05:
                due = len(above.dispatch.under_way())
                if due:
                    count = passed - due + rng.randrange(1, due + 1)
                    above.taken(Taken(count=count))


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # output is for answers
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
