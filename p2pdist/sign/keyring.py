"""Keys by name, and the passphrases that open them.

A passphrase comes from a file or from the terminal without an echo; never from the command line or the
environment, where other processes can see it.
"""

from __future__ import annotations

import getpass
import stat
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import Key, Signer

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded
from p2pdist.ids import parse_product
from p2pdist.sign.options import interactive
from p2pdist.trust.changes import current_keys, match_key
from p2pdist.trust.keys import KEY_NAME_FIELD, Kdf, SealedKeyFile, key_name, load_public_key
from p2pdist.trust.repository import Repository
from p2pdist.trust.signing import SigningState

_TRIES = 3


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class PassphraseOptions:
    """Where passphrases come from."""

    passphrase_file: tuple[str, ...] = ()
    """A file whose first line is the passphrase; NAME=FILE for one key only. Can be given several times.
    Without it the terminal asks."""

    def passphrase(self, name: str) -> bytes | None:
        """Return the passphrase for a key from the files; None if none is meant for it.

        Raises:
            UsageError: the file cannot be read, is empty, or others can read it too.
        """
        found: Path | None = None
        for entry in self.passphrase_file:
            owner, separator, path = entry.partition("=")
            if separator and owner == name:
                found = Path(path)
                break
            if not separator:
                found = found or Path(entry)
        return None if found is None else _read_passphrase(found)

    def current_passphrase(self, name: str) -> bytes:
        """Return a key's passphrase, asked for on the terminal if no file is meant for it."""
        given = self.passphrase(name)
        return given if given is not None else _ask(f"Passphrase of {name} now: ")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class NewKeyOptions(PassphraseOptions):
    """How new keys are sealed."""

    kdf: Annotated[Kdf, Parameter(env_var="P2PDIST_SIGN_KDF")] = "moderate"
    """How hard the passphrase is to guess: moderate takes about a second and 256 MiB for each try,
    interactive a tenth of a second and 64 MiB."""

    def new_passphrase(self, name: str, purpose: str) -> bytes:
        """Return a passphrase for a new key, asked for twice on a terminal."""
        given = self.passphrase(name)
        if given is not None:
            return given
        while True:
            first = _ask(f"New passphrase for {name} ({purpose}): ")
            if not first:
                raise UsageError("the passphrase is empty", hint="choose one of several words")
            if first == _ask(f"The same again for {name}: "):
                return first
            print("The two were different; once more.")


PASSPHRASES = PassphraseOptions()
NEW_KEYS = NewKeyOptions()


class Keyring:
    """The keys within reach: files beside the repository, and files that were named.

    Args:
        repository: Its ``keys`` directory is searched.
        files: Further key files.
    """

    def __init__(self, repository: Repository | None, files: Iterable[Path] = ()) -> None:
        found = sorted(repository.keys.glob("*.key")) if repository is not None else []
        self._directory = repository.keys if repository is not None else None
        self.files: dict[str, SealedKeyFile] = {}
        for path in [*found, *files]:
            file = SealedKeyFile.load(path)
            self.files[file.keyid] = file

    def path_of(self, name: str) -> Path:
        """Return where a key made here is kept. Raises UsageError if the name is none for a file."""
        assert self._directory is not None
        return self._directory / f"{parse_product(name)}.key"

    def resolve(self, text: str, state: SigningState | None) -> Key:
        """Find a public key by the name of a key here, by a file, or by the name of a key in use.

        Raises:
            UsageError: there is none.
        """
        path = Path(text)
        if path.is_file():
            return load_public_key(path)
        if self._directory is not None and (self._directory / f"{text}.key").is_file():
            return load_public_key(self._directory / f"{text}.key")
        if state is not None:
            known: dict[str, Key] = {}
            for role in (*state.roles(), "online"):
                known |= {key.keyid: key for key in current_keys(state, role).keys}
            matching = [key for key in known.values() if _named(key, text)]
            if matching:
                return match_key(matching, text)
        raise UsageError(
            f"there is no key called {text!r} here, and no file {text}",
            hint=f"make it: p2pdist-sign key new {text}; or name the file with somebody's public key",
        )


def open_key(file: SealedKeyFile, passphrases: PassphraseOptions) -> Signer | None:
    """Open a sealed key with its passphrase, asked for up to three times on a terminal.

    Returns:
        The signer; None if nothing was typed, or nothing that opens the key.

    Raises:
        UsageError: the passphrase in a file is wrong, or there is no way to ask for it.
    """
    given = passphrases.passphrase(file.name)
    if given is not None:
        return file.open(given)
    for left in reversed(range(_TRIES)):
        typed = _ask(f"Passphrase for {key_name(file.public_key)} (Enter leaves it out): ")
        if not typed:
            return None
        try:
            return file.open(typed)
        except UsageError as error:
            if "does not open" not in error.what:
                raise
            print(f"{error.what}; {'once more' if left else 'it is left out'}.")
    return None


def parse_signer(entry: str, wanted: Sequence[Key]) -> tuple[Key, str]:
    """Read ``NAME=URI``, a signer of securesystemslib such as a hardware token: which key it has, and where.

    Raises:
        UsageError: it is not written so, or no such key is wanted.
    """
    name, separator, uri = entry.partition("=")
    if not separator:
        raise UsageError(f"{entry!r} names no signer", hint="write NAME=URI, such as alice=hsm:2")
    return match_key(wanted, name), uri


def open_uri(uri: str, key: Key, passphrases: PassphraseOptions) -> Signer:
    """Open a signer of securesystemslib. Raises UsageError if it cannot be had."""
    name = str(key.unrecognized_fields.get(KEY_NAME_FIELD, key.keyid[:8]))

    def secret(what: str) -> str:
        given = passphrases.passphrase(name)
        return (given if given is not None else _ask(f"{what} for {name}: ")).decode()

    try:
        return Signer.from_priv_key_uri(uri, key, secret)
    except (ValueError, OSError, RuntimeError, ImportError, UnsupportedLibraryError) as error:
        raise UsageError(f"the signer {uri} cannot be used ({error})") from None


def _named(key: Key, text: str) -> bool:
    try:
        match_key([key], text)
    except UsageError:
        return False
    return True


def _ask(prompt: str) -> bytes:
    """Ask without an echo. Raises UsageError where nobody can be asked."""
    if not interactive():
        raise UsageError(
            "a passphrase is needed and there is no terminal to ask for it", hint="use --passphrase-file"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(prompt).encode()
        except getpass.GetPassWarning:
            raise UsageError(
                "this terminal would show the passphrase", hint="use another one, or --passphrase-file"
            ) from None
        except EOFError:
            raise UsageError("no passphrase was given", hint="use --passphrase-file") from None


def _read_passphrase(path: Path) -> bytes:
    lines = read_bounded(path, bytes_max=limits.KIB).splitlines()
    status = path.stat()
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        raise UsageError(f"{path} can be read by others", hint=f"run: chmod 600 {path}")
    if not lines or not lines[0]:
        raise UsageError(f"{path} is empty", hint="its first line is the passphrase")
    return lines[0]
