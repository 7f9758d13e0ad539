"""Signing drafts: sign."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from securesystemslib.signer import Key, Signer

from p2pdist.errors import P2PDistError, UsageError
from p2pdist.files import read_bounded
from p2pdist.limits import ROOT_BYTES_MAX
from p2pdist.sign.keyring import PASSPHRASES, Keyring, PassphraseOptions, open_key, open_uri, parse_signer
from p2pdist.sign.looking import Request, chosen_roles, loaded, print_differences
from p2pdist.sign.options import OPTIONS, Options, agreed, changed, interactive
from p2pdist.trust.differences import differences
from p2pdist.trust.exchange import SigningRequest
from p2pdist.trust.keys import SealedKeyFile, key_name
from p2pdist.trust.refusals import role_words
from p2pdist.trust.repository import Repository
from p2pdist.trust.signing import SigningState


def sign(
    roles: list[str] | None = None,
    /,
    *,
    key: list[str] | None = None,
    signer: list[str] | None = None,
    request: Request = None,
    trusted_root: Path | None = None,
    yes: Annotated[bool, Parameter(alias="-y")] = False,
    passphrases: PassphraseOptions = PASSPHRASES,
    options: Options = OPTIONS,
) -> None:
    """Sign drafts, after showing what changes.

    Offered are the key files beside the repository (or those that are named) whose signature is still
    wanted, one after the other, until enough have signed; Enter instead of a passphrase leaves a key out.
    Each signature is checked and kept as soon as it is made, so that people can come one by one: call it
    again until `status` shows nothing missing.

        p2pdist-sign sign
        p2pdist-sign sign stable --key bob

    On a machine without the repository:

        p2pdist-sign sign --request request.json --key bob.key

    Parameters
    ----------
    roles
        Only these: root, targets, points, or channels' names.
    key
        Sign with this key only: a name here, or a key file. Can be given several times.
    signer
        Sign with a hardware or cloud key: NAME=URI as securesystemslib writes it, such as alice=hsm:2.
    request
        A signing request (`export`) to sign, instead of the repository.
    trusted_root
        With a request: the root metadata that you know to be your fleet's.
    yes
        Do not ask. Look at `diff` before.
    """
    state, taken = loaded(options, request)
    if trusted_root is not None and taken is None:
        raise UsageError("a trusted root is compared with a request's", hint="say --request FILE as well")
    if trusted_root is not None and taken is not None:
        taken.check_trusted_root(read_bounded(trusted_root, bytes_max=ROOT_BYTES_MAX))
    chosen = chosen_roles(state, roles)
    wanted: dict[str, Key] = {}
    for role in chosen:
        wanted |= state.wanted_keys(role)
    if not chosen:
        raise UsageError("there is no draft to be signed", hint="change something first")
    if not wanted:
        raise UsageError("everything here is signed", hint="next: p2pdist-sign publish DIR, or import")
    shown = {role: state.drafts[role].signed_bytes for role in chosen}
    hands = _hands(options, request, key, signer, wanted, passphrases)
    _agree(state, chosen, hands, yes=yes)
    state, made = _sign_by_turns(hands, options, request, shown, state)
    if not made:
        raise UsageError("nothing was signed")
    lines = [f"{entry['key']} has signed {role_words(entry['role'])}" for entry in made]
    if request is not None:
        lines.append(f"send {request} back; there: p2pdist-sign import {request.name}")
    changed(options, state, lines, signed=made)


@contextmanager
def _changing(options: Options, request: Path | None) -> Iterator[SigningState]:
    if request is None:
        with options.open().change() as state:
            yield state
        return
    taken = SigningRequest.load(request)
    yield taken.state
    taken.save(request)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hand:
    """A key within reach, and how it is opened; None comes out if its holder does not want to."""

    key: Key
    open: Callable[[], Signer | None]


def _hands(
    options: Options,
    request: Path | None,
    keys: list[str] | None,
    uris: list[str] | None,
    wanted: dict[str, Key],
    passphrases: PassphraseOptions,
) -> list[_Hand]:
    """List the keys within reach that are wanted."""
    repository = options.open() if request is None else None
    files = _offered(repository, keys, wanted, external=bool(uris))
    if keys is None and not interactive():  # nobody can be asked: those whose passphrases are there
        files = [file for file in files if passphrases.passphrase(file.name) is not None] or files
    hands = [_Hand(key=file.public_key, open=partial(open_key, file, passphrases)) for file in files]
    for entry in uris or []:
        key, uri = parse_signer(entry, list(wanted.values()))
        hands.append(_Hand(key=key, open=partial(open_uri, uri, key, passphrases)))
    return hands


def _agree(state: SigningState, chosen: list[str], hands: list[_Hand], *, yes: bool) -> None:
    """Show what would be signed, and let the person agree. Raises UsageError if nobody does."""
    if yes:
        return
    print_differences(
        Console(highlight=False, stderr=True), {role: differences(state, role) for role in chosen}
    )
    if not interactive():
        raise UsageError("nobody is there to agree to this", hint="look at it with diff, then use --yes")
    if not agreed(f"Sign this with {', '.join(key_name(hand.key) for hand in hands)}?"):
        raise UsageError("nothing was signed")


def _sign_by_turns(
    hands: list[_Hand],
    options: Options,
    request: Path | None,
    shown: dict[str, bytes],
    state: SigningState,
) -> tuple[SigningState, list[dict[str, str]]]:
    """Sign with one key after the other until enough have. Returns the state at the end, and who did."""
    made: list[dict[str, str]] = []
    for hand in hands:
        if not any(hand.key.keyid in state.wanted_keys(role) for role in shown):
            continue  # enough others have signed meanwhile
        try:
            state, signed = _sign_with(hand, options, request, shown, state)
        except P2PDistError as error:
            kept = ", ".join(dict.fromkeys(entry["key"] for entry in made))
            so_far = f"signed have {kept}" if kept else "nothing was signed"
            raise type(error)(f"{error.what}; {so_far}", hint=error.hint) from error
        made += [{"role": role, "key": key_name(hand.key)} for role in signed]
    return state, made


def _sign_with(
    hand: _Hand, options: Options, request: Path | None, shown: dict[str, bytes], before: SigningState
) -> tuple[SigningState, list[str]]:
    """Sign with one key, and keep the signatures. Returns the state after it, and the roles it signed."""
    signer = hand.open()
    if signer is None:
        return before, []
    with _changing(options, request) as state:
        _check_unchanged(state, shown)
        roles = [role for role in shown if hand.key.keyid in state.wanted_keys(role)]
        for role in roles:
            state.sign(role, signer)
    return state, roles


def _check_unchanged(state: SigningState, shown: dict[str, bytes]) -> None:
    for role, payload in shown.items():
        if role not in state.drafts or state.drafts[role].signed_bytes != payload:
            raise UsageError(f"{role_words(role)} was changed meanwhile", hint="look at it again, then sign")


def _offered(
    repository: Repository | None, keys: list[str] | None, wanted: dict[str, Key], *, external: bool
) -> list[SealedKeyFile]:
    if keys is None and external:
        return []
    if keys is None:
        within_reach = list(Keyring(repository).files.values())
    else:
        keyring = Keyring(repository)
        paths = [
            Path(text) if Path(text).is_file() else _path_here(keyring, repository, text) for text in keys
        ]
        within_reach = [SealedKeyFile.load(path) for path in paths]
    offered = [file for file in within_reach if file.keyid in wanted]
    if not offered:
        names = ", ".join(sorted(key_name(key) for key in wanted.values()))
        raise UsageError(
            "no key within reach has a say in this that it has not used yet",
            hint=f"wanted are {names}; name a key file: --key FILE",
        )
    return offered


def _path_here(keyring: Keyring, repository: Repository | None, text: str) -> Path:
    if repository is None:
        raise UsageError(f"there is no key file {text}")
    return keyring.path_of(text)
