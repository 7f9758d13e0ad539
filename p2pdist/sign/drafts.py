"""Drafts on their way: export, import, renew, discard."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from p2pdist.errors import P2PDistError, UsageError
from p2pdist.sign.options import OPTIONS, Options, changed, time_now
from p2pdist.trust import changes
from p2pdist.trust.exchange import SigningRequest, import_signatures
from p2pdist.trust.refusals import role_words
from p2pdist.trust.signing import SigningState, parse_role


def export(file: Path, /, *, options: Options = OPTIONS) -> None:
    """Write the drafts to one file, to be signed on another machine.

    It goes there and comes back:

        p2pdist-sign export request.json    # here
        p2pdist-sign sign --request request.json --key bob.key    # there
        p2pdist-sign import request.json    # here again

    The file is no secret. It holds the drafts, what was published last and the roots, and no content. One
    that carries signatures which have not been imported is not overwritten.

    Parameters
    ----------
    file
        The file to write.
    """
    request = SigningRequest.of(options.open())
    _check_overwritten(file, request.state)
    request.save(file)
    lines = [f"{file} holds {', '.join(role_words(role) for role in request.state.drafts)}"]
    changed(options, request.state, lines, file=str(file), drafts=list(request.state.drafts))


def _check_overwritten(file: Path, state: SigningState) -> None:
    """Refuse to overwrite signatures that are not in the repository, and what is no signing request."""
    if not file.exists():
        return
    try:
        drafts = SigningRequest.load(file).state.drafts
    except P2PDistError:
        raise UsageError(f"{file} exists and is no signing request", hint="choose another name") from None
    for role, draft in drafts.items():
        here = [documents[role] for documents in (state.drafts, state.published) if role in documents]
        if not all(any(keyid in own.signatures for own in here) for keyid in draft.signatures):
            raise UsageError(
                f"{file} carries signatures on {role_words(role)} that are not in the repository",
                hint=f"take them first: p2pdist-sign import {file}; or choose another name",
            )


def import_(file: Path, /, *, options: Options = OPTIONS) -> None:
    """Take over the signatures from a file that came back; each is checked.

    A role whose draft was changed after the export is named and left out; the others' signatures are taken.

        p2pdist-sign import request.json

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

    Nothing else changes:

        p2pdist-sign renew
        p2pdist-sign renew stable points
        p2pdist-sign renew --within-days 90

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

    The content that was added for it stays in the repository.

        p2pdist-sign discard stable

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
