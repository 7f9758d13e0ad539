"""HTTPS servers on loopback: nginx as the honest mirror, and one of ours that does what no nginx would."""

from __future__ import annotations

import ipaddress
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
TINYPROXY = shutil.which("tinyproxy", path="/usr/sbin:/usr/bin:/sbin:/bin")

Answer = Callable[[trio.abc.Stream, "Asked"], Awaitable[None]]


class WebAuthority:
    """A CA for web servers on 127.0.0.0/8 and at *hosts*, and the certificate of one of them, in files."""

    def __init__(self, directory: Path, *hosts: str) -> None:
        now = datetime.now(UTC)
        key, name = ec.generate_private_key(ec.SECP256R1()), _name("web CA")
        ca = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        own = ec.generate_private_key(ec.SECP256R1())
        names = [*(f"127.0.0.{host}" for host in range(1, 10)), *hosts]
        addresses = [x509.IPAddress(ipaddress.ip_address(name)) for name in names]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name("mirror"))
            .issuer_name(name)
            .public_key(own.public_key())
            .serial_number(2)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        self.ca_file = directory / "web-ca.pem"
        self.certificate = directory / "web.pem"
        self.key = directory / "web.key"
        self.ca_file.write_bytes(ca.public_bytes(Encoding.PEM))
        self.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        self.key.write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as listener:
        listener.bind((host, 0))
        port: int = listener.getsockname()[1]
        return port


async def wait_listening(port: int) -> None:
    with trio.fail_after(20):
        while True:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
            except OSError:
                await trio.sleep(0.02)
            else:
                return


class Nginx:
    """What an nginx serves, and what it has logged of the content."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    @property
    def sent(self) -> int:
        """Bytes of bodies, as far as they are logged."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return sum(int(line.split()[1]) for line in lines)

    @property
    def statuses(self) -> list[int]:
        return [int(line.split()[0]) for line in self._log.read_text().splitlines()]

    def sent_of(self, path: str) -> int:
        """Bytes of the bodies of one file."""
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return sum(int(count) for _, count, of in lines if of == path)

    async def wait_sent(self, count: int) -> None:
        """Wait until so many bytes are logged: a request is when it has ended."""
        with trio.fail_after(10):
            while self.sent < count:
                await trio.sleep(0.02)


def configure_nginx(
    directory: Path, authority: WebAuthority, root: Path, listen: str, *, rules: str = ""
) -> Path:
    """Write the configuration of an nginx that serves the files below *root*; return its path."""
    (directory / "logs").mkdir()
    path = directory / "nginx.conf"
    path.write_text(
        f"""
        daemon off; master_process off; worker_processes 1; pid {directory}/pid; error_log {directory}/error;
        events {{ worker_connections 64; }}
        http {{
            log_format short "$status $body_bytes_sent $uri"; access_log {directory}/log short;
            client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
            scgi_temp_path {directory}/scgi;
            server {{
                listen {listen} ssl; server_name mirror;
                ssl_certificate {authority.certificate}; ssl_certificate_key {authority.key};
                location / {{ root {root}; {rules} }}
            }}
        }}
        """
    )
    return path


@asynccontextmanager
async def open_nginx(
    directory: Path, authority: WebAuthority, content: Path, *, rules: str = ""
) -> AsyncIterator[Nginx]:
    """Serve the directory of *content* by nginx; *rules* are directives of its only location."""
    assert NGINX is not None
    directory.mkdir()
    port = free_port()
    configure_nginx(directory, authority, content.parent, f"127.0.0.1:{port}", rules=rules)
    command = [
        NGINX,
        "-p",
        str(directory),
        "-e",
        str(directory / "error"),
        "-c",
        str(directory / "nginx.conf"),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        await wait_listening(port)
        yield Nginx(f"https://127.0.0.1:{port}/{content.name}", directory / "log")
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def open_tinyproxy(directory: Path, user: str, password: str) -> AsyncIterator[tuple[str, Path]]:
    """Open a proxy that wants a password; yield its address and its log."""
    assert TINYPROXY is not None
    directory.mkdir()
    port = free_port()
    log = directory / "log"
    (directory / "conf").write_text(
        f'Port {port}\nListen 127.0.0.1\nTimeout 60\nLogFile "{log}"\nLogLevel Connect\nMaxClients 20\n'
        f"Allow 127.0.0.1\nBasicAuth {user} {password}\n"
    )
    command = [TINYPROXY, "-d", "-c", str(directory / "conf")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        await wait_listening(port)
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.terminate()
        process.wait()


class Asked:
    """One request: its range and its headers."""

    _RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)\Z")

    def __init__(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.path = lines[0].split(" ")[1]
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        found = self._RANGE.match(self.headers.get("range", ""))
        self.start, self.end = (int(found[1]), int(found[2]) + 1) if found else (0, 0)

    def head(
        self, length: int, *, etag: str = '"1"', status: str = "206 Partial Content", more: str = ""
    ) -> bytes:
        return (
            f"HTTP/1.1 {status}\r\nETag: {etag}\r\nContent-Length: {self.end - self.start}\r\n"
            f"Content-Range: bytes {self.start}-{self.end - 1}/{length}\r\n{more}\r\n"
        ).encode()


@asynccontextmanager
async def open_server(authority: WebAuthority, answer: Answer) -> AsyncIterator[str]:
    """Open a server that answers each request by *answer*, and then closes the connection."""

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            async with stream:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    data = await stream.receive_some(4_096)
                    if not data:
                        return
                    head += data
                await answer(stream, Asked(head))
        except (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError):
            return

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(
            0, authority.context(), host="127.0.0.1", https_compatible=True
        )
        port = listeners[0].transport_listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"https://127.0.0.1:{port}/file"
        nursery.cancel_scope.cancel()
