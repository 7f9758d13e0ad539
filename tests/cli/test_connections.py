"""Requests to a server over connections that are kept, against servers that do what they like."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import pytest
from mirror_servers import WebAuthority

from p2pdist.cli.connections import Connections

Talk = Callable[[ssl.SSLSocket], None]

HELLO = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
FULL = b"HTTP/1.1 507 Full\r\nconnection: close\r\ncontent-length: 4\r\n\r\nfull"
MIB = 1 << 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> WebAuthority:
    return WebAuthority(tmp_path_factory.mktemp("authority"))


@contextmanager
def serving(authority: WebAuthority, *talks: Talk) -> Iterator[Connections]:
    """Serve as many connections as there are *talks*, each as the next of them says, also at once."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.certificate, authority.key)
    listener = socket.create_server(("127.0.0.1", 0))

    def handle(accepted: socket.socket, talk: Talk) -> None:
        with accepted, suppress(OSError), context.wrap_socket(accepted, server_side=True) as stream:
            talk(stream)

    def accept() -> None:
        with listener:
            for talk in talks:
                thread = threading.Thread(target=handle, args=(listener.accept()[0], talk))
                thread.start()
                threads.append(thread)

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    trusted = ssl.create_default_context(cafile=str(authority.ca_file))
    connections = Connections(f"https://127.0.0.1:{listener.getsockname()[1]}", trusted)
    try:
        yield connections
    finally:
        connections.close()
        for thread in threads:
            thread.join(10)


def head(stream: ssl.SSLSocket) -> bytes:
    """Read the head of a request; nothing at the end."""
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            return b""
        read += byte
    return read


def polite(stream: ssl.SSLSocket) -> None:
    """Greet for every request, until the other side closes."""
    while head(stream):
        stream.sendall(HELLO)


def hearing(stream: ssl.SSLSocket) -> None:
    """Answer nothing, until the other side closes."""
    while stream.recv(MIB):
        pass


def get(connections: Connections) -> bytes:
    return connections.exchange("GET", "/", {}, (), 0).content


def test_a_connection_is_kept_for_the_next_request(authority: WebAuthority) -> None:
    with serving(authority, polite) as connections:
        assert [get(connections) for _ in range(3)] == [b"hello"] * 3


def test_a_connection_that_the_server_has_closed_is_not_used_again(authority: WebAuthority) -> None:
    closed = threading.Event()

    def once(stream: ssl.SSLSocket) -> None:
        head(stream)
        stream.sendall(HELLO)
        stream.shutdown(socket.SHUT_RDWR)
        closed.set()

    with serving(authority, once, polite) as connections:
        assert get(connections) == b"hello"
        assert closed.wait(10)
        assert get(connections) == b"hello"


def test_requests_at_the_same_time_have_connections_of_their_own(authority: WebAuthority) -> None:
    both = threading.Barrier(2, timeout=10)

    def together(stream: ssl.SSLSocket) -> None:
        head(stream)
        both.wait()
        stream.sendall(HELLO)

    got: list[bytes] = []
    with serving(authority, together, together) as connections:
        threads = [threading.Thread(target=lambda: got.append(get(connections))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert got == [b"hello"] * 2


def test_what_a_server_has_said_that_takes_no_more_is_heard(
    authority: WebAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = HTTPSConnection.send

    def full(stream: ssl.SSLSocket) -> None:
        head(stream)
        stream.sendall(FULL)
        hearing(stream)

    def broken(connection: HTTPSConnection, data: bytes) -> None:
        if len(data) == MIB:
            raise BrokenPipeError
        send(connection, data)

    monkeypatch.setattr(HTTPSConnection, "send", broken)
    with serving(authority, full) as connections:
        answer = connections.exchange("PUT", "/", {}, [bytes(MIB)] * 2, 2 * MIB)
    assert (answer.status, answer.content) == (507, b"full")


@pytest.mark.parametrize("given", [[b"four"], [b"four", b"four", b"four"]])
def test_a_body_that_has_another_length_than_was_said_is_an_error(
    authority: WebAuthority, given: list[bytes]
) -> None:
    expected = pytest.raises(HTTPException, match="something else to send than 8 bytes")
    with serving(authority, hearing) as connections, expected:
        connections.exchange("PUT", "/", {}, given, 8)


def test_a_body_arrives_as_it_was_given(authority: WebAuthority) -> None:
    arrived = b""

    def keep(stream: ssl.SSLSocket) -> None:
        nonlocal arrived
        assert b"content-length: 8\r\n" in head(stream)
        while len(arrived) < 8:
            arrived += stream.recv(8)
        stream.sendall(HELLO)

    with serving(authority, keep) as connections:
        connections.exchange("PUT", "/", {}, [b"four", b"five"], 8)
    assert arrived == b"fourfive"


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH\r\n", HELLO[:-1]])
def test_what_is_no_whole_answer_is_an_error(authority: WebAuthority, said: bytes) -> None:
    def wrong(stream: ssl.SSLSocket) -> None:
        head(stream)
        stream.sendall(said)

    with serving(authority, wrong) as connections, pytest.raises((HTTPException, OSError)):
        get(connections)


def test_a_server_of_another_authority_is_not_spoken_to(authority: WebAuthority, tmp_path: Path) -> None:
    heard: list[bytes] = []
    with serving(WebAuthority(tmp_path), lambda stream: heard.append(head(stream))) as connections:
        connections._context = ssl.create_default_context(cafile=str(authority.ca_file))
        with pytest.raises(ssl.SSLCertVerificationError):
            get(connections)
    assert not any(heard)
