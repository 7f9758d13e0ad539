"""A vendor's mirror: nginx with a certificate of a web authority of its own, outside of the fleet."""

from __future__ import annotations

import ipaddress
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from laboratory.namespaces import PATH

from demo_fleet.network import Machine
from demo_fleet.plan import DemoError
from demo_fleet.programs import Programs

_READY_S = 20.0
_LIFE = timedelta(days=1)

_CONFIG = """
daemon off; master_process off; worker_processes 1; pid {place}/pid; error_log {place}/error;
events {{ worker_connections 256; }}
http {{
    log_format demo '$remote_addr $status $body_bytes_sent "$request" "$http_range"';
    access_log {place}/access demo;
    client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    server {{
        listen {host}:443 ssl;
        ssl_certificate {place}/web.pem; ssl_certificate_key {place}/web.key;
        root {place}/files;
    }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """The mirror. Made by :func:`set_up_vendor`, started by :meth:`open`.

    Attributes:
        ca: The web authority that its certificate is of.
    """

    machine: Machine
    place: Path
    ca: Path

    def url(self, file: Path) -> str:
        """Return where the mirror has a file."""
        return f"https://{self.machine.host}/{file.name}"

    def offer(self, file: Path) -> None:
        """Put a file there."""
        shutil.copy(file, self.place / "files" / file.name)

    async def open(self, programs: Programs) -> None:
        """Start it; returns once it listens. Raises DemoError."""
        nginx = shutil.which("nginx", path=PATH)
        assert nginx is not None, "there is no vendor without nginx"
        words = ("-p", self.place, "-e", self.place / "error", "-c", self.place / "nginx.conf")
        await programs.start("vendor", self.machine, nginx, *words)
        with trio.move_on_after(_READY_S):
            while not (self.place / "pid").exists():
                await trio.sleep(0.05)
            return
        raise DemoError(f"the vendor's mirror is not there after {_READY_S:.0f} s; see {self.place}/error")

    def sent(self) -> Counter[str]:
        """Return how many bytes of files have gone to each address, by its log."""
        log = self.place / "access"
        sent: Counter[str] = Counter()
        for line in log.read_text().splitlines() if log.exists() else ():
            address, _, count, *_ = line.split()
            sent[address] += int(count)
        return sent


def set_up_vendor(place: Path, machine: Machine, files: Sequence[Path]) -> Vendor:
    """Make what the mirror needs, with *files* in it. Blocking."""
    (place / "files").mkdir(parents=True)
    vendor = Vendor(machine=machine, place=place, ca=place / "web-ca.pem")
    for file in files:
        vendor.offer(file)
    _certify(place, machine.host)
    (place / "nginx.conf").write_text(_CONFIG.format(place=place, host=machine.host))
    return vendor


def why_no_vendor() -> str:
    """Say why there can be no mirror here; an empty string if there can."""
    return "" if shutil.which("nginx", path=PATH) else "not installed: nginx (package: nginx-light)"


def _certify(place: Path, host: str) -> None:
    """Make a web authority, and a certificate of it for *host*."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web authority of the demonstration")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "downloads.vendor.example")])
    now = datetime.now(UTC)
    begun = x509.CertificateBuilder().issuer_name(ca_name).not_valid_before(now - _LIFE)
    begun = begun.not_valid_after(now + _LIFE)
    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca = (
        begun.subject_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(signs, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    certificate = (
        begun.subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    (place / "web-ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    (place / "web.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (place / "web.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
