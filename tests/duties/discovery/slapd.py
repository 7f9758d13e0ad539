"""A real directory service: Debian's slapd on loopback, with TLS."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SLAPD, SLAPADD = shutil.which("slapd", path=_PATH), shutil.which("slapadd", path=_PATH)

COMPUTERS = 1_200
PASSWORD = "open sesame"

_CONFIG = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/certificate.pem
TLSCertificateKeyFile {folder}/key.pem
database mdb
suffix dc=acme
rootdn cn=admin,dc=acme
rootpw "{password}"
directory {folder}/data
access to * by users read by anonymous auth
sizelimit size.soft=100 size.hard=100 size.prtotal=unlimited size.pr=500
"""


@dataclass(frozen=True, slots=True)
class Slapd:
    port: int
    tls_port: int
    ca_file: str


def certificates(folder: Path, address: str = "127.0.0.1") -> None:
    """A certificate authority, and a certificate for an address."""
    now = datetime.now(UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("Test CA", "slapd")]
    for place, file in enumerate(("ca.pem", "certificate.pem")):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[place])
            .issuer_name(names[0])
            .public_key(keys[place].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=place == 0, path_length=None), critical=True)
        )
        if place:
            name = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
            builder = builder.add_extension(name, critical=False)
        made = builder.sign(keys[0], hashes.SHA256())
        (folder / file).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _content(more: Iterable[str]) -> str:
    units = "".join(
        f"dn: ou={unit},dc=acme\nobjectClass: organizationalUnit\nou: {unit}\n\n"
        for unit in ("Berlin", "Paris")
    )
    named = "".join(f"dn: cn={name},ou=Berlin,dc=acme\nobjectClass: device\ncn: {name}\n\n" for name in more)
    devices = "".join(
        f"dn: cn=pc{number},ou={'Paris' if number % 3 else 'Berlin'},dc=acme\n"
        f"objectClass: device\nobjectClass: ipHost\ncn: pc{number}\nipHostNumber: 10.1.{number % 250}.7\n\n"
        for number in range(COMPUTERS)
    )
    top = "dn: dc=acme\nobjectClass: organization\nobjectClass: dcObject\no: Acme\ndc: acme\n\n"
    return top + units + devices + named


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def open_slapd(folder: Path) -> Iterator[Slapd]:
    """Run a directory with COMPUTERS computers, which gives nobody more than 100 without paging."""
    ports = free_port(), free_port()
    with running_slapd(folder, "127.0.0.1", ports) as slapd:
        yield slapd


@contextmanager
def running_slapd(
    folder: Path,
    address: str,
    ports: tuple[int, int] = (389, 636),
    *,
    within: Callable[..., Sequence[str]] = lambda *words: words,
    more: Iterable[str] = (),
) -> Iterator[Slapd]:
    """Run one at an address, where *within* makes commands run, with *more* computers in Berlin."""
    assert SLAPD is not None and SLAPADD is not None
    (folder / "data").mkdir()
    certificates(folder, address)
    config = folder / "slapd.conf"
    config.write_text(_CONFIG.format(folder=folder, password=PASSWORD))
    subprocess.run(
        [SLAPADD, "-q", "-f", str(config)], input=_content(more), text=True, check=True, capture_output=True
    )
    urls = f"ldap://{address}:{ports[0]}/ ldaps://{address}:{ports[1]}/"
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            within(SLAPD, "-d", "0", "-f", str(config), "-h", urls), stdout=output, stderr=output
        )
    try:
        connect = f"import socket; socket.create_connection(({address!r}, {ports[1]}), 1)"
        _wait_until_open(within(sys.executable, "-c", connect), folder / "output")
        yield Slapd(*ports, str(folder / "ca.pem"))
    finally:
        process.kill()
        process.wait()


def _wait_until_open(probe: Sequence[str], output: Path) -> None:
    until = time.monotonic() + 20
    while subprocess.run(probe, capture_output=True, check=False).returncode:
        assert time.monotonic() < until, output.read_text()
