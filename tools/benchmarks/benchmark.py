"""What benchmarks have in common: options, a directory for everything, and where results go."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def option_parser(
    name: str, documentation: str | None, numbers: Mapping[str, tuple[float, str]], systems: Collection[str]
) -> argparse.ArgumentParser:
    """Return a parser with the options that benchmarks share.

    Args:
        name: The benchmark's.
        documentation: Its module's, for the help.
        numbers: Options of its own, each with a default, whose type is the option's, and its meaning.
        systems: What is measured beside each other; ``--only`` chooses.
    """
    description, _, rest = (documentation or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog=f"tools/bench {name}",
        description=description,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option, (default, text) in numbers.items():
        parser.add_argument(
            option, type=type(default), default=default, help=f"{text} (default {default:g})", metavar="N"
        )
    parser.add_argument("--only", choices=systems, action="append", help="measure this one (repeatable)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--output", type=Path, default=Path("bench-results"), help="where to save it")
    parser.add_argument("--keep", action="store_true", help="leave logs and data, and say where")
    return parser


@contextmanager
def working_directory(options: argparse.Namespace, within: Path | None = None) -> Iterator[Path]:
    """Have a directory for all that a benchmark writes; it is gone afterwards, unless it is to be kept.

    SIGTERM and an interrupt end the block, and then the program, in an orderly way.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="p2pdist-bench-", dir=within))
    try:
        yield directory
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        if options.keep:
            say(options, f"logs and data of every program: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def say(options: argparse.Namespace, text: str) -> None:
    """Tell the user how far it is."""
    print(text, file=sys.stderr if options.json else sys.stdout, flush=True)


def save(options: argparse.Namespace, result: Mapping[str, Any], name: str) -> Path:
    """Write the result into a file, and return its path."""
    options.output.mkdir(parents=True, exist_ok=True)
    path: Path = options.output / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def machine() -> dict[str, Any]:
    """Say where it was measured."""
    return {
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }
