"""A host's side of a measurement: what does the network before me do? Plain sockets, no code of the product.

    python -m laboratory.probe behaviour CONTROL EXPIRY_S ADDRESS ADDRESS
    python -m laboratory.probe endpoints CONTROL EXPIRY_S ADDRESS ADDRESS

The first prints a :class:`laboratory.kinds.Behaviour` as JSON, the second one socket's outside endpoint
for each line that it reads. The two addresses are the server's, of one family (see responder.py). EXPIRY_S
is how long a mapping that does not expire early must live without traffic. A silence is only believed after
the server has said that it was asked. The tests are those of RFC 5780, section 4.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from laboratory.responder import TCP_PORTS, UDP_PORTS, open_socket

TRIES = 8
WAIT_S = 0.5
SECOND_ANSWER_S = 1.0
_ids = itertools.count()


class Probe:
    """The tests, against one server in one address family."""

    def __init__(self, control: str, expiry_s: float, addresses: Sequence[str]) -> None:
        self._control = control
        self._expiry_s = expiry_s
        self._addresses = addresses
        self._any = "::" if ":" in addresses[0] else "0.0.0.0"
        self._taken: list[socket.socket] = []
        with self._socket() as ours:
            ours.connect((addresses[0], UDP_PORTS[0]))
            self._own = ours.getsockname()[0]

    def behaviour(self) -> dict[str, Any]:
        """Run all tests, slow ones beside each other."""
        with self._socket() as ours:
            seen = self.outside(ours)
            translated = None if seen is None else seen != [self._own, ours.getsockname()[1]]
        found: dict[str, Any] = {"udp_out": seen is not None, "translated": translated}
        tests: dict[str, Callable[[], Any]] = {
            "udp_in": self._udp_in,
            "tcp_out": self._tcp_out,
            "tcp_in": self._tcp_in,
        }
        only_with_udp: dict[str, Callable[[], Any]] = {
            "mapping": self._mapping,
            "filtering": self._filtering,
            "hairpin": self._hairpin,
            "expires_early": self._expires_early,
        }
        if seen is None:
            found |= dict.fromkeys(only_with_udp)
        else:
            tests |= only_with_udp
        with ThreadPoolExecutor(len(tests)) as threads:
            running = {name: threads.submit(test) for name, test in tests.items()}
        return found | {name: test.result() for name, test in running.items()}

    def outside(self, ours: socket.socket, address: int = 0, port: int = 0) -> Any:
        """Return the endpoint of a socket as one of the server's endpoints sees it, or None."""
        return self._ask(ours, address, port)[0]

    def _mapping(self) -> str:
        with self._socket() as ours:
            first = self.outside(ours, 0, 0)
            other_port = self.outside(ours, 0, 1)
            other_address = self.outside(ours, 1, 0)
        if first != other_port:
            return "address-and-port-dependent"
        return "endpoint-independent" if first == other_address else "address-dependent"

    def _filtering(self) -> str:
        for answering, name in (((1, 1), "endpoint-independent"), ((0, 1), "address-dependent")):
            with self._socket() as ours:
                if self._ask(ours, 0, 0, answering)[1]:
                    return name
        return "address-and-port-dependent"

    def _hairpin(self) -> bool:
        with self._socket() as left, self._socket() as right:
            to_left, to_right = self.outside(left), self.outside(right)
            if to_left is None or to_right is None:
                raise TimeoutError("the server does not answer any more")
            heard: set[socket.socket] = set()
            for _ in range(TRIES):
                left.sendto(b"{}", tuple(to_right))
                right.sendto(b"{}", tuple(to_left))
                heard |= {ours for ours in (left, right) if _received(ours, WAIT_S / 2) is not None}
            return heard == {left, right}

    def _expires_early(self) -> bool:
        with self._socket() as ours:
            return not self._ask(ours, 0, 0, (0, 0), after_s=self._expiry_s)[1]

    def _udp_in(self) -> bool:
        with self._socket() as ours:
            for _ in range(TRIES):
                self._order("datagram", [self._own, ours.getsockname()[1]])
                if _received(ours, WAIT_S / 2) is not None:
                    return True
        return False

    def _tcp_out(self) -> list[int]:
        reached = []
        for port in TCP_PORTS:
            connection = self._connect(self._listener(), port)
            if connection is not None:
                connection[0].close()
                reached.append(port)
        return reached

    def _tcp_in(self) -> bool:
        with self._listener() as listener:
            listener.listen()
            ours = listener.getsockname()[1]
            outside: Sequence[Any] = [self._own, ours]
            with open_socket(self._any, ours, socket.SOCK_STREAM) as dialling:
                out = next(filter(None, (self._connect(dialling, port) for port in TCP_PORTS)), None)
                if out is not None:
                    outside = out[1]
                return self._order("dial", outside)

    def _connect(self, ours: socket.socket, port: int) -> tuple[socket.socket, Any] | None:
        """Connect to the server; return the connection and where the server sees it."""
        ours.settimeout(WAIT_S * 2)
        try:
            ours.connect((self._addresses[0], port))
            return ours, json.loads(ours.makefile("r").readline())
        except (OSError, ValueError):
            return None

    def _ask(
        self, ours: socket.socket, address: int, port: int, again: Any = None, after_s: float = 0.0
    ) -> tuple[Any, bool]:
        """Return where the server sees *ours*, and whether a second answer came, late or from elsewhere."""
        number = next(_ids)
        request = json.dumps({"id": number, "from": again, "after": after_s}).encode()
        for _ in range(TRIES):
            ours.sendto(request, (self._addresses[address], UDP_PORTS[port]))
            answers = _answers(ours, number, wanted=1, wait_s=WAIT_S)
            if any(answer["first"] for answer in answers):
                seen = next(answer["seen"] for answer in answers if answer["first"])
                if again is None:
                    return seen, False
                answers += _answers(ours, number, wanted=1, wait_s=SECOND_ANSWER_S + after_s)
                return seen, any(not answer["first"] for answer in answers)
            if answers:
                return answers[0]["seen"], True
        return None, False

    def _order(self, kind: str, to: Sequence[Any]) -> bool:
        """Let the server send a datagram or dial a connection to us from its other address."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(self._control)
            order = {"kind": kind, "source": self._addresses[1], "to": to}
            control.sendall(json.dumps(order).encode() + b"\n")
            return bool(json.loads(control.makefile("r").readline()))

    def _socket(self) -> socket.socket:
        """Return a socket with a port of its own, which no other test gets while this program runs.

        What a test has opened in a filter would let in what another one waits for.
        """
        ours = socket.socket(socket.AF_INET6 if ":" in self._any else socket.AF_INET, socket.SOCK_DGRAM)
        ours.bind((self._any, 0))
        self._taken.append(ours.dup())
        return ours

    def _listener(self) -> socket.socket:
        return open_socket(self._any, 0, socket.SOCK_STREAM)


def _answers(ours: socket.socket, number: int, wanted: int, wait_s: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    end = time.monotonic() + wait_s
    while len(found) < wanted and (data := _received(ours, end - time.monotonic())) is not None:
        answer = json.loads(data)
        if answer.get("id") == number:
            found.append(answer)
    return found


def _received(ours: socket.socket, wait_s: float) -> bytes | None:
    ours.settimeout(max(wait_s, 0.001))
    try:
        return ours.recv(2048)
    except OSError:
        return None


def main() -> None:
    """Run what the command line asks for."""
    what, control, expiry_s, *addresses = sys.argv[1:]
    probe = Probe(control, float(expiry_s), addresses)
    if what == "behaviour":
        print(json.dumps(probe.behaviour()))
        return
    with open_socket("::" if ":" in addresses[0] else "0.0.0.0", 0, socket.SOCK_DGRAM) as ours:
        for _ in sys.stdin:
            print(json.dumps(probe.outside(ours)), flush=True)


if __name__ == "__main__":
    main()
