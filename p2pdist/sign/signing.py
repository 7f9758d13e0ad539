"""Looking at drafts and signing them: status, diff, sign, export, import, renew, discard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from securesystemslib.signer import Key, Signer

from p2pdist.errors import P2PDistError, UsageError
from p2pdist.files import read_bounded
from p2pdist.limits import ROOT_BYTES_MAX
from p2pdist.sign.keyring import PASSPHRASES, Keyring, PassphraseOptions, open_key, open_uri, parse_signer
from p2pdist.sign.options import OPTIONS, Options, agreed, changed, interactive, signatures_wanted, time_now
from p2pdist.trust import changes
from p2pdist.trust.differences import differences
from p2pdist.trust.exchange import SigningRequest, import_signatures
from p2pdist.trust.keys import SealedKeyFile, key_name
from p2pdist.trust.refusals import role_words
from p2pdist.trust.repository import Repository
from p2pdist.trust.signing import SigningState, parse_role

Request = Annotated[Path | None, Parameter(alias="-r")]


def status(*, request: Request = None, options: Options = OPTIONS) -> None:
    """Show every role: versions, when it expires, who has signed and whose signature is missing.

    Parameters
    ----------
    request
        A signing request (`export`) to look at, instead of the repository.
    """
    state, _ = _loaded(options, request)
    now = time_now()
    rows: list[dict[str, Any]] = []
    for role in state.roles():
        standing = state.standing(role)
        rows.append(
            {
                "role": role,
                "published": standing.published,
                "draft": standing.draft,
                "expires": standing.expires.isoformat(),
                "days_left": round((standing.expires - now) / timedelta(days=1), 1),
                "complete": standing.complete,
                "signed": [list(demand.signed) for demand in standing.demands],
                "unsigned": [list(demand.unsigned) for demand in standing.demands],
                "thresholds": [demand.threshold for demand in standing.demands],
            }
        )

    def render(console: Console) -> None:
        console.print(f"fleet {state.fleet}", markup=False)
        table = Table("role", "published", "draft", "valid for", "signed by", "missing")
        for row in rows:
            table.add_row(
                row["role"].removeprefix("channel-"),
                str(row["published"] or "-"),
                str(row["draft"] or "-"),
                f"{row['days_left']} days" if row["days_left"] > 0 else "EXPIRED",
                "; ".join(", ".join(names) for names in row["signed"]) or "-",
                signatures_wanted(state).get(row["role"], "-"),
            )
        console.print(table)

    options.answer({"fleet": state.fleet, "roles": rows}, render)


def diff(roles: list[str] | None = None, /, *, request: Request = None, options: Options = OPTIONS) -> None:
    """Say in words what exactly would be signed: every draft against what is published.

    Parameters
    ----------
    roles
        Only these: root, targets, points, or channels' names.
    request
        A signing request (`export`) to look at, instead of the repository.
    """
    state, _ = _loaded(options, request)
    lines = {role: differences(state, role) for role in _chosen(state, roles)}
    options.answer({"differences": lines}, lambda console: _print_differences(console, lines))


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
    state, taken = _loaded(options, request)
    if trusted_root is not None and taken is None:
        raise UsageError("a trusted root is compared with a request's", hint="say --request FILE as well")
    if trusted_root is not None and taken is not None:
        taken.check_trusted_root(read_bounded(trusted_root, bytes_max=ROOT_BYTES_MAX))
    chosen = _chosen(state, roles)
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
    made: list[dict[str, str]] = []
    for hand in hands:
        if not any(hand.key.keyid in state.wanted_keys(role) for role in chosen):
            continue  # enough others have signed meanwhile
        try:
            state, signed = _sign_with(hand, options, request, shown, state)
        except P2PDistError as error:
            kept = ", ".join(dict.fromkeys(entry["key"] for entry in made))
            so_far = f"signed have {kept}" if kept else "nothing was signed"
            raise type(error)(f"{error.what}; {so_far}", hint=error.hint) from error
        made += [{"role": role, "key": key_name(hand.key)} for role in signed]
    if not made:
        raise UsageError("nothing was signed")
    lines = [f"{entry['key']} has signed {role_words(entry['role'])}" for entry in made]
    if request is not None:
        lines.append(f"send {request} back; there: p2pdist-sign import {request.name}")
    changed(options, state, lines, signed=made)


def export(file: Path, /, *, options: Options = OPTIONS) -> None:
    """Write the drafts to one file, to be signed on another machine.

        p2pdist-sign export request.json            here
        p2pdist-sign sign --request request.json --key bob.key   there
        p2pdist-sign import request.json            here again

    The file is no secret. It holds the drafts, what was published last and the roots, and no content.

    Parameters
    ----------
    file
        The file to write.
    """
    request = SigningRequest.of(options.open())
    request.save(file)
    lines = [f"{file} holds {', '.join(role_words(role) for role in request.state.drafts)}"]
    changed(options, request.state, lines, file=str(file), drafts=list(request.state.drafts))


def import_(file: Path, /, *, options: Options = OPTIONS) -> None:
    """Take over the signatures from a file that came back; each is checked.

        p2pdist-sign import request.json

    A role whose draft was changed after the export is named and left out; the others' signatures are taken.

    Parameters
    ----------
    file
        The signing request, signed elsewhere.
    """
    repository = options.open()
    came = import_signatures(repository, SigningRequest.load(file))
    lines = [f"{', '.join(names)} signed {role_words(role)}" for role, names in came.taken.items()]
    lines = lines or ["there was no new signature"]
    lines += [f"NOT TAKEN, of {role_words(role)}: {reason}" for role, reason in came.refused.items()]
    changed(options, repository.load(), lines, taken=came.taken, refused=came.refused)


def renew(roles: list[str] | None = None, /, *, within_days: int = 30, options: Options = OPTIONS) -> None:
    """Open what expires soon, so that signing it again gives it a new expiry.

    Parameters
    ----------
    roles
        These: root, targets, points, or channels' names. By default whatever expires soon.
    within_days
        How soon that is.
    """
    now = time_now()
    with options.open().change() as state:
        if roles:
            names = [parse_role(role) for role in roles]
        else:
            limit = now + timedelta(days=within_days)
            names = [role for role in state.roles() if state.standing(role).expires <= limit]
        for name in names:
            changes.renew(state, name, now)
    lines = [f"{role_words(name)} is opened" for name in names] or ["nothing expires soon"]
    changed(options, state, lines, opened=names)


def discard(role: str, /, *, options: Options = OPTIONS) -> None:
    """Throw a draft away, with its signatures: the role stays as it is published.

    Parameters
    ----------
    role
        root, targets, points, or a channel's name.
    """
    with options.open().change() as state:
        state.discard(parse_role(role))
        opened = state.settle(time_now())
    lines = [f"the draft of {role_words(parse_role(role))} is discarded"]
    lines += [f"{role_words(other)} must be signed again" for other in opened]
    changed(options, state, lines, discarded=parse_role(role), opened=opened)


def _loaded(options: Options, request: Path | None) -> tuple[SigningState, SigningRequest | None]:
    if request is None:
        return options.open().load(), None
    taken = SigningRequest.load(request)
    return taken.state, taken


@contextmanager
def _changing(options: Options, request: Path | None) -> Iterator[SigningState]:
    if request is None:
        with options.open().change() as state:
            yield state
        return
    taken = SigningRequest.load(request)
    yield taken.state
    taken.save(request)


def _chosen(state: SigningState, roles: list[str] | None) -> list[str]:
    names = [parse_role(role) for role in roles] if roles else state.roles()
    for name in names:
        if roles and name not in state.drafts:
            raise UsageError(f"{role_words(name)} has no draft", hint="see: status")
    return [name for name in names if name in state.drafts]


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
    _print_differences(
        Console(highlight=False, stderr=True), {role: differences(state, role) for role in chosen}
    )
    if not interactive():
        raise UsageError("nobody is there to agree to this", hint="look at it with diff, then use --yes")
    if not agreed(f"Sign this with {', '.join(key_name(hand.key) for hand in hands)}?"):
        raise UsageError("nothing was signed")


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


def _print_differences(console: Console, lines: dict[str, list[str]]) -> None:
    if not lines:
        console.print("there is no draft")
    for role, sentences in lines.items():
        console.print(f"{role_words(role)}:", markup=False, style="bold")
        for sentence in sentences:
            console.print(f"  {sentence}", markup=False, soft_wrap=True)
