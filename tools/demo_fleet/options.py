"""The command line of tools/demo."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demo_fleet import lab

SITES_MAX = 40
DEVICES_MAX = 200

_EPILOGUE = """\
Everything runs in a temporary directory, on loopback addresses or (--network lab) in network
namespaces of its own; nothing else on this machine is touched. In the lab distribution points also poll
their networks, bring the agent onto three bare machines over SSH, get an update from a vendor's mirror, and
wake who rests for it. That takes root, and a minute more where the agent has to be built.
Exit codes: 0 every device ended as it should, 1 one did not, 2 wrong usage, 130 interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for. ``uplink_mbit`` is the origin's, in Mbit/s; 0 is unlimited."""

    network: Literal["loopback", "lab"]
    sites: int
    devices: int
    packages: tuple[Path, ...]
    json: bool
    keep: bool
    uplink_mbit: int
    patience_s: float
    picture: Path | None


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the command line; wrong usage ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="tools/demo",
        description="Sign, publish, distribute and install real packages in a whole fleet on this machine,"
        " and then attack it.",
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--network",
        choices=("loopback", "lab"),
        default="loopback",
        help="loopback addresses (default); or a laboratory of networks with real NAT, whose sites are: "
        + ", ".join(lab.KINDS),
    )
    parser.add_argument(
        "--sites", type=_Count(SITES_MAX), metavar="N", help="sites (default 2; 4 in the lab)"
    )
    parser.add_argument(
        "--devices",
        type=_Count(DEVICES_MAX),
        metavar="N",
        help=f"devices at each site (default 3, 2 in the lab; {lab.DEVICES_MAX} at most there)",
    )
    parser.add_argument(
        "--package",
        type=_package,
        action="append",
        default=[],
        metavar="PATH",
        help="distribute this instead: a directory, a .deb or any other file; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument(
        "--keep", action="store_true", help="leave the fleet running, and say how to look around"
    )
    parser.add_argument(
        "--uplink",
        type=_Count(100_000, least=0),
        default=80,
        metavar="MBIT",
        help="the admin server's uplink in Mbit/s (default 80; 0 is as fast as the machine goes)",
    )
    parser.add_argument(
        "--patience",
        type=_Count(86_400),
        default=600,
        metavar="SECONDS",
        help="give up on a step after this long (default 600)",
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the outcome as an SVG")
    parsed = parser.parse_args(arguments)
    in_lab = parsed.network == "lab"
    if in_lab and parsed.sites not in (None, len(lab.KINDS)):
        parser.error(f"argument --sites: the lab has {len(lab.KINDS)} sites: {', '.join(lab.KINDS)}")
    if in_lab and (parsed.devices or 0) > lab.DEVICES_MAX:
        parser.error(f"argument --devices: a site of the lab has room for {lab.DEVICES_MAX}")
    return Options(
        network=parsed.network,
        sites=parsed.sites or (len(lab.KINDS) if in_lab else 2),
        devices=parsed.devices or (2 if in_lab else 3),
        packages=tuple(parsed.package),
        json=parsed.json,
        keep=parsed.keep,
        uplink_mbit=parsed.uplink,
        patience_s=float(parsed.patience),
        picture=parsed.picture,
    )


class _Count:
    """A number on the command line, within bounds; argparse names it in its messages."""

    def __init__(self, most: int, *, least: int = 1) -> None:
        self._least, self._most = least, most
        self.__name__ = f"number from {least} to {most}"

    def __call__(self, text: str) -> int:
        number = int(text)
        if not self._least <= number <= self._most:
            raise ValueError
        return number


def _package(text: str) -> Path:
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    if path.is_dir() and not any(path.iterdir()):
        raise argparse.ArgumentTypeError(f"{text} is an empty directory")
    return path.resolve()
