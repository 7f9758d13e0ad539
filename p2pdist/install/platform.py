"""What this machine is, and which releases fit it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64", "i386": "i686", "i586": "i686"}
_DPKG_TOOLS = ("dpkg", "dpkg-deb", "dpkg-query")
_DPKG_TIMEOUT_S = 10.0  # printing a constant; a machine that takes longer is not usable


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The facts that decide whether a release can be installed here."""

    platform: str
    """Operating system and architecture, such as ``linux-x86_64``."""
    deb_architectures: tuple[str, ...] = ()
    """What dpkg takes, its own architecture first; empty without a usable dpkg."""
    guarded: bool = False
    """Whether the program that asks runs under a guard, which can start another version of it."""


def detect_platform() -> str:
    """Name this machine the way releases do: ``linux-x86_64``, ``linux-aarch64``."""
    facts = os.uname()
    architecture = facts.machine.lower().replace("-", "_")
    return f"{facts.sysname.lower()}-{_ARCHITECTURES.get(architecture, architecture)}"


def matches(platform: str, release_platform: str) -> bool:
    """Whether a release for *release_platform* (``any``, a system, a system and architecture) fits."""
    return release_platform in ("any", platform, platform.partition("-")[0])


def detect_machine() -> Machine:
    """Look at this machine. Blocking (it asks dpkg); once per start is enough."""
    return Machine(platform=detect_platform(), deb_architectures=_deb_architectures())


def _deb_architectures() -> tuple[str, ...]:
    if not all(shutil.which(tool) for tool in _DPKG_TOOLS):
        return ()
    found: list[str] = []
    for option in ("--print-architecture", "--print-foreign-architectures"):
        try:
            answer = subprocess.run(
                ["dpkg", option],
                capture_output=True,
                check=True,
                timeout=_DPKG_TIMEOUT_S,
            )
        except (OSError, subprocess.SubprocessError):
            return ()
        found += answer.stdout.decode("ascii", "replace").split()
    return tuple(found)
