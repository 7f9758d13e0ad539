"""A vendor: a Debian repository made by apt-ftparchive, signed by GnuPG, in a directory for a web server."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

APT_FTPARCHIVE = shutil.which("apt-ftparchive")
GPG = shutil.which("gpg")
DPKG_DEB = shutil.which("dpkg-deb")


class Signer:
    """OpenPGP keys in a home of their own. Made by :func:`open_signer`."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def gpg(self, *arguments: str, data: bytes = b"", at: str = "") -> bytes:
        """Run GnuPG, *at* another time (``20250101T000000``) if it is given."""
        assert GPG is not None
        time = ["--faked-system-time", at] if at else []
        common = ["--homedir", str(self._home), "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
        return subprocess.run(
            [GPG, *common, *time, *arguments], input=data, check=True, capture_output=True
        ).stdout

    def make(self, name: str, *, at: str = "", life: str = "never") -> bytes:
        """Make a key; return its certificate."""
        self.gpg("--quick-gen-key", name, "ed25519", "sign", life, at=at)
        return self.export(name)

    def export(self, name: str, *options: str) -> bytes:
        return self.gpg(*options, "--export", name)

    def revoke(self, name: str) -> bytes:
        """Revoke a key; return its certificate."""
        (line,) = [
            line
            for line in self.gpg("--with-colons", "--list-keys", name).decode().splitlines()
            if line[:3] == "fpr"
        ]
        revocation = (self._home / "openpgp-revocs.d" / f"{line.split(':')[9]}.rev").read_text()
        self.gpg("--import", data=revocation.replace(":-----BEGIN", "-----BEGIN").encode())
        return self.export(name)

    def clear(self, text: bytes, *names: str, at: str = "") -> bytes:
        """Sign a text in clear."""
        return self.gpg(*(part for name in names for part in ("-u", name)), "--clearsign", data=text, at=at)

    def detached(self, text: bytes, name: str, at: str = "") -> bytes:
        return self.gpg("-u", name, "--armor", "--detach-sign", data=text, at=at)


@contextmanager
def open_signer() -> Iterator[Signer]:
    """Open a home for keys; its agent ends with the block. Paths of sockets are short, so it is in /tmp."""
    home = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
    try:
        yield Signer(home)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


class AptRepository:
    """A repository with the suite ``stable`` and the component ``main``, for amd64."""

    def __init__(self, directory: Path, signer: Signer, key: str) -> None:
        self.directory = directory
        self.signer = signer
        self.key = key
        self.packages = directory / "dists" / "stable" / "main" / "binary-amd64"
        self.pool = directory / "pool"
        self.packages.mkdir(parents=True)
        self.pool.mkdir()

    @property
    def in_release(self) -> Path:
        return self.directory / "dists" / "stable" / "InRelease"

    def add(self, package: str, version: str, *, architecture: str = "amd64", content: bytes = b"") -> Path:
        """Build a package into the pool."""
        with tempfile.TemporaryDirectory() as scratch:
            control = Path(scratch) / "DEBIAN" / "control"
            control.parent.mkdir()
            control.parent.chmod(0o755)
            (Path(scratch) / "data").write_bytes(content or f"{package} {version}".encode())
            control.write_text(
                f"Package: {package}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: V <v@x>\n"
                "Description: something\n of a vendor\n"
            )
            path = self.pool / f"{package}_{version.rpartition(':')[2]}_{architecture}.deb"
            subprocess.run(
                ["dpkg-deb", "--root-owner-group", "-b", scratch, str(path)], check=True, capture_output=True
            )
        return path

    def index(self, *, packings: tuple[str, ...] = ("xz", "gz", "")) -> None:
        """Write ``Packages`` of what is in the pool."""
        assert APT_FTPARCHIVE is not None
        ran = subprocess.run(
            [APT_FTPARCHIVE, "packages", "pool"], cwd=self.directory, check=True, capture_output=True
        )
        self.write_packages(ran.stdout, packings=packings)

    def write_packages(self, text: bytes, *, packings: tuple[str, ...] = ("xz", "gz", "")) -> None:
        """Write ``Packages`` as *text*, also by its hashes."""
        for packing in packings:
            packed = {"xz": lzma.compress, "gz": gzip.compress, "": bytes}[packing](text)
            name = f"Packages.{packing}".rstrip(".")
            (self.packages / name).write_bytes(packed)
            by_hash = self.packages / "by-hash" / "SHA256"
            by_hash.mkdir(parents=True, exist_ok=True)
            (by_hash / hashlib.sha256(packed).hexdigest()).write_bytes(packed)

    def release(
        self, *, valid_until: str = "", date: str = "", suite: str = "stable", by_hash: str = "yes"
    ) -> bytes:
        """Return what ``InRelease`` says of what is there now; moments as it writes them."""
        assert APT_FTPARCHIVE is not None
        fields = {"Suite": suite, "Codename": suite, "Acquire-By-Hash": by_hash}
        options = [
            part
            for name, value in fields.items()
            for part in ("-o", f"APT::FTPArchive::Release::{name}={value}")
        ]
        for path in (self.in_release, self.in_release.with_name("Release")):
            path.unlink(missing_ok=True)
        text = subprocess.run(
            [APT_FTPARCHIVE, *options, "release", "dists/stable"],
            cwd=self.directory,
            check=True,
            capture_output=True,
        ).stdout
        if date:
            text = re.sub(rb"(?m)^Date: .*$", f"Date: {date}".encode(), text)
        if valid_until:
            text = re.sub(rb"(?m)^(Date: .*)$", rb"\1\nValid-Until: " + valid_until.encode(), text)
        return text

    def publish(self, **fields: str) -> None:
        """Index what is in the pool, and sign that."""
        self.index()
        self.sign(self.release(**fields))

    def sign(self, release: bytes, key: str = "") -> None:
        self.in_release.write_bytes(self.signer.clear(release, key or self.key))
