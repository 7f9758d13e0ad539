"""The software that the demonstration distributes: real, and already on this machine.

The tree is made of compiled libraries that the set-up has installed, with a health check that compares
every file with its hash; the Debian package is made with dpkg-deb from this project's own source.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo_fleet.plan import DemoError

TREE_BYTES_MIN = 20_000_000
TREE_BYTES_ENOUGH = 90_000_000
"""Compiled code packs to about a third of its size, so that more than 20 MB travel."""

_LIBRARIES = ("libtorrent", "cryptography", "nacl", "av", "zstandard", "numpy", "av.libs")
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.pyi", "tests", "*.pyx", "*.pxd", "*.h", "*.c")

_HEALTH_CHECK = """#!/bin/sh
# Run by the agent in the new version before it stays current: every file must be whole.
set -e
cd "$(dirname "$0")/.."
sha256sum --check --quiet MANIFEST
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """Something to sign. ``source`` is a directory, a ``.deb`` or any other file."""

    product: str
    version: str
    sequence: int
    kind: str
    """``tree``, ``deb``, ``file`` or ``agent``."""
    source: Path
    install_path: str = ""
    """Where a ``file`` goes on the device."""
    health_check: str = ""
    platform: str = ""
    """Empty is any."""
    mirror: str = ""
    """Where a vendor has the same content."""


def make_packages(directory: Path, given: Sequence[Path]) -> list[Package]:
    """Return what is distributed in the main part: what the user gave, or the tree and the .deb. Blocking."""
    if given:
        return [_given(path, number) for number, path in enumerate(given, 1)]
    packages = [make_tree(directory / "workbench")]
    if shutil.which("dpkg-deb") and shutil.which("dpkg"):
        packages.append(make_deb(directory))
    return packages


def check_packages(given: Sequence[Path]) -> None:
    """Look into what the user gave, before a whole fleet is made for it. Blocking. Raises DemoError."""
    for path in given:
        if path.suffix == ".deb" and shutil.which("dpkg-deb"):
            looked = subprocess.run(
                ["dpkg-deb", "--field", path], capture_output=True, text=True, check=False
            )
            if looked.returncode != 0:
                raise DemoError(f"{path} is no Debian package: {looked.stderr.strip()}")


def make_tree(directory: Path) -> Package:
    """Copy libraries of the set-up into a clean tree until it is large enough."""
    size = 0
    (directory / "bin").mkdir(parents=True)
    for library in _libraries():
        target = directory / "lib" / library.name
        shutil.copytree(library, target, ignore=_NOT_COPIED, symlinks=True)
        size += sum(path.stat().st_size for path in _files(target))
        if size >= TREE_BYTES_ENOUGH:
            break
    if size < TREE_BYTES_MIN:
        raise DemoError("the set-up has brought less than 20 MB of libraries; run tools/demo again")
    manifest = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(directory)}\n"
        for path in _files(directory / "lib")
    )
    (directory / "MANIFEST").write_text(manifest)
    check = directory / "bin" / "health-check"
    check.write_text(_HEALTH_CHECK)
    check.chmod(0o755)
    return Package(
        product="workbench",
        version="2.0",
        sequence=2,
        kind="tree",
        source=directory,
        health_check="bin/health-check",
    )


def make_deb(directory: Path) -> Package:
    """Make a Debian package of this project's own source."""
    name, version = "p2pdist-source", "0.1.0"
    stage = directory / "deb"
    found = importlib.util.find_spec("p2pdist")
    assert found is not None and found.submodule_search_locations is not None
    shutil.copytree(
        found.submodule_search_locations[0], stage / "usr/share/p2pdist-source/p2pdist", ignore=_NOT_COPIED
    )
    control = stage / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nSection: misc\nPriority: optional\n"
        "Maintainer: The demonstration fleet <demo@fleet.example>\n"
        "Description: Source of p2pdist\n A Debian package for the demonstration, made by tools/demo.\n"
    )
    for path in [stage, *stage.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    result = directory / f"{name}_{version}_all.deb"
    made = subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(stage), str(result)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise DemoError(f"dpkg-deb could not make a package: {made.stderr.strip()}")
    return Package(product=name, version=version, sequence=1, kind="deb", source=result)


def make_policies(directory: Path) -> tuple[Package, Package]:
    """Make two versions of a small configuration file: an older one and a newer one."""
    older = _policy(directory, "1.0", 1, "# version 1.0 of the policy\nremote-login = yes\n")
    newer = _policy(directory, "2.0", 2, "# version 2.0 of the policy, closes a hole\nremote-login = no\n")
    return older, newer


def make_baits(directory: Path) -> tuple[Package, Package]:
    """Take two compiled libraries of the set-up: one is altered on the server's disk, one at a point."""
    at_server = _bait(directory, "sodium", "nacl", "_sodium*.so")
    return at_server, _bait(directory, "msgspec", "msgspec", "_core*.so")


def make_vendors(directory: Path) -> Package:
    """Take a library of the set-up that is large enough to be read by several: what a vendor offers."""
    libraries = Path(_search_path("av")[0]).with_name("av.libs")
    library = max(libraries.glob("*.so*"), key=lambda path: path.stat().st_size)
    path = directory / "codec-7.1.so"
    shutil.copy(library, path)
    return Package(
        product="codec",
        version="7.1",
        sequence=1,
        kind="file",
        source=path,
        install_path="/opt/codec/codec.so",
    )


def manifest_entry(package: Package) -> str:
    """Return what the manifest of `p2pdist-sign add` says of a package."""
    fields: dict[str, object] = {
        "path": str(package.source),
        "product": package.product,
        "sequence": package.sequence,
        "install": package.kind,
    }
    if package.kind != "deb":  # which says its version itself
        fields["version"] = package.version
    if package.install_path:
        fields["to"] = package.install_path
    if package.health_check:
        fields["health_check"] = package.health_check
    if package.platform:
        fields["platform"] = package.platform
    if package.mirror:
        fields["mirrors"] = [package.mirror]
    return "[[release]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in fields.items()) + "\n"


def _bait(directory: Path, product: str, module: str, pattern: str) -> Package:
    library = next(iter(sorted(Path(_search_path(module)[0]).glob(pattern))))
    path = directory / library.name
    shutil.copy(library, path)
    return Package(
        product=product,
        version="1.0",
        sequence=1,
        kind="file",
        source=path,
        install_path=f"/usr/lib/{library.name}",
    )


def _policy(directory: Path, version: str, sequence: int, text: str) -> Package:
    path = directory / f"policy-{version}.conf"
    path.write_text(text)
    return Package(
        product="policy",
        version=version,
        sequence=sequence,
        kind="file",
        source=path,
        install_path="/etc/policy.conf",
    )


def _given(path: Path, number: int) -> Package:
    product = "".join(c if c.isascii() and c.isalnum() else "-" for c in path.name.lower()).strip("-")
    product = f"{product[:40].strip('-') or 'package'}"
    if number > 1:
        product = f"{product}-{number}"
    if path.is_dir():
        return Package(product=product, version="1.0", sequence=1, kind="tree", source=path)
    if path.suffix == ".deb":
        return Package(product=product, version="1.0", sequence=1, kind="deb", source=path)
    return Package(
        product=product,
        version="1.0",
        sequence=1,
        kind="file",
        source=path,
        install_path=f"/opt/{path.name}",
    )


def _libraries() -> Iterator[Path]:
    packages = Path(_search_path("trio")[0]).parent
    for name in _LIBRARIES:
        if (packages / name).is_dir():
            yield packages / name


def _search_path(module: str) -> list[str]:
    found = importlib.util.find_spec(module)
    assert found is not None and found.submodule_search_locations is not None
    return list(found.submodule_search_locations)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
