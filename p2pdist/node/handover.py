"""What a machine is enrolled with: the bundle and a token, from files or from standard input.

Standard input is for whoever enrols another machine: what it writes there stands in no file and on no command
line of that machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded
from p2pdist.trust.enrolment import EnrolmentBundle

STANDARD_INPUT = Path("-")


def read_handover(bundle: Path, token_file: Path | None) -> tuple[EnrolmentBundle, str]:
    """Return the bundle and the token; the token is empty where no file of it is named.

    ``-`` is standard input. Where both are, the token is its first line, and the bundle the rest. Blocking.

    Raises:
        UsageError: one cannot be read or is not valid, or others can read the token's file.
    """
    if bundle == STANDARD_INPUT:
        data = sys.stdin.buffer.read(limits.ENROLMENT_BUNDLE_BYTES_MAX + limits.KIB)
        if token_file != STANDARD_INPUT:
            return EnrolmentBundle.decode(data), read_token(token_file) if token_file else ""
        first, _, rest = data.partition(b"\n")
        return EnrolmentBundle.decode(rest), _checked(first, "the first line of standard input")
    if token_file == STANDARD_INPUT:
        said = sys.stdin.buffer.read(limits.KIB)
        return EnrolmentBundle.load(bundle), _checked(said, "standard input")
    return EnrolmentBundle.load(bundle), read_token(token_file) if token_file else ""


def read_token(path: Path) -> str:
    """Read an enrolment token from a file, so that it never stands on a command line.

    Raises:
        UsageError: the file cannot be read, or others can read it too.
    """
    if path.stat().st_mode & 0o077 if path.exists() else False:
        raise UsageError(f"{path} can be read by others", hint=f"chmod 600 {path}, and make a new token")
    return _checked(read_bounded(path, bytes_max=limits.KIB), str(path))


def _checked(data: bytes, where: str) -> str:
    text = data.decode("ascii", errors="replace").strip()
    if not text:
        raise UsageError(f"{where} is empty", hint="it holds what p2pdist token add printed")
    return text
