"""Looking at drafts: status, diff."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from p2pdist.errors import UsageError
from p2pdist.sign.options import OPTIONS, Options, signatures_wanted, time_now
from p2pdist.trust.catalog import SeedGrant
from p2pdist.trust.contents import POINTS_ROLE
from p2pdist.trust.differences import differences
from p2pdist.trust.exchange import SigningRequest
from p2pdist.trust.refusals import role_words
from p2pdist.trust.signing import SigningState, parse_role

Request = Annotated[Path | None, Parameter(alias="-r")]

_SOON_DAYS = 30  # as renew takes it
_UNIX_SECONDS_MAX = 32_503_680_000  # the year 3000


def status(*, request: Request = None, options: Options = OPTIONS) -> None:
    """Show every role: versions, until when it is valid, who has signed and whose signature is missing.

    And the seed grants, and what is to be done next.

    Here, or in a request that came from elsewhere:

        p2pdist-sign status
        p2pdist-sign status --request request.json

    Parameters
    ----------
    request
        A signing request (`export`) to look at, instead of the repository.
    """
    state, taken = loaded(options, request)
    now = time_now()
    rows = [_role_row(state, role, now) for role in state.roles()]
    online = options.open().online_until() if taken is None else {}
    renewed = {role: _until(moment, now) for role, moment in online.items()}
    grants = _grant_rows(state, now)
    following = _next(state, rows, grants)

    def render(console: Console) -> None:
        console.print(f"fleet {state.fleet}", markup=False)
        table = Table("role", "published", "draft", "valid until", "signed by", "missing")
        for row in rows:
            table.add_row(
                row["role"].removeprefix("channel-"),
                str(row["published"] or "-"),
                str(row["draft"] or "-"),
                _until_words(row),
                "; and ".join(", ".join(names) for names in row["signed"] if names) or "-",
                signatures_wanted(state).get(row["role"], "-"),
            )
        for role, until in renewed.items():
            table.add_row(role, "yes", "-", _until_words(until), "the admin server, by itself", "-")
        console.print(table)
        if grants:
            table = Table("seed grant", "scope", "who dials", "valid until")
            for grant in grants:
                dials = "those above" if grant["dialled"] else "it"
                table.add_row(grant["node"], grant["scope"], dials, _until_words(grant))
            console.print(table)
        console.print(f"next: {following}", markup=False, soft_wrap=True)

    result = {"fleet": state.fleet, "roles": rows, "online": renewed, "grants": grants, "next": following}
    options.answer(result, render)


def diff(roles: list[str] | None = None, /, *, request: Request = None, options: Options = OPTIONS) -> None:
    """Say in words what exactly would be signed: every draft against what is published.

    All of it, or one role:

        p2pdist-sign diff
        p2pdist-sign diff stable
        p2pdist-sign diff --request request.json

    Parameters
    ----------
    roles
        Only these: root, targets, points, or channels' names.
    request
        A signing request (`export`) to look at, instead of the repository.
    """
    state, _ = loaded(options, request)
    lines = {role: differences(state, role) for role in chosen_roles(state, roles)}
    options.answer({"differences": lines}, lambda console: print_differences(console, lines))


def loaded(options: Options, request: Path | None) -> tuple[SigningState, SigningRequest | None]:
    """Read the state of the repository, or that of a request."""
    if request is None:
        return options.open().load(), None
    taken = SigningRequest.load(request)
    return taken.state, taken


def chosen_roles(state: SigningState, roles: list[str] | None) -> list[str]:
    """Return those of the named roles, or of all, that have a draft. Raises UsageError if one has none."""
    names = [parse_role(role) for role in roles] if roles else state.roles()
    for name in names:
        if roles and name not in state.drafts:
            raise UsageError(f"{role_words(name)} has no draft", hint="see: status")
    return [name for name in names if name in state.drafts]


def print_differences(console: Console, lines: dict[str, list[str]]) -> None:
    """Print what each role's draft changes."""
    if not lines:
        console.print("there is no draft")
    for role, sentences in lines.items():
        console.print(f"{role_words(role)}:", markup=False, style="bold")
        for sentence in sentences:
            console.print(f"  {sentence}", markup=False, soft_wrap=True)


def _role_row(state: SigningState, role: str, now: datetime) -> dict[str, Any]:
    standing = state.standing(role)
    return {
        "role": role,
        "published": standing.published,
        "draft": standing.draft,
        **_until(standing.expires, now),
        "complete": standing.complete,
        "signed": [list(demand.signed) for demand in standing.demands],
        "unsigned": [list(demand.unsigned) for demand in standing.demands],
        "thresholds": [demand.threshold for demand in standing.demands],
    }


def _grant_rows(state: SigningState, now: datetime) -> list[dict[str, Any]]:
    rows = []
    for file in state.latest(POINTS_ROLE).signed.targets.values() if POINTS_ROLE in state.roles() else ():
        try:
            grant = msgspec.convert(file.custom, SeedGrant)
        except msgspec.ValidationError:
            continue  # of a request from elsewhere; diff shows it as it stands
        until = datetime.fromtimestamp(min(grant.expires, _UNIX_SECONDS_MAX), UTC)
        rows.append(
            {"node": grant.node, "scope": grant.scope, "dialled": grant.dialled, **_until(until, now)}
        )
    return sorted(rows, key=lambda row: row["days_left"])


def _until(moment: datetime, now: datetime) -> dict[str, Any]:
    return {"expires": moment.isoformat(), "days_left": round((moment - now) / timedelta(days=1), 1)}


def _until_words(row: dict[str, Any]) -> str:
    date, days = row["expires"][:10], row["days_left"]
    return f"{date} ({days} days)" if days > 0 else f"{date} EXPIRED"


def _next(state: SigningState, rows: list[dict[str, Any]], grants: list[dict[str, Any]]) -> str:
    """Say what is to be done next."""
    if signatures_wanted(state):
        return "p2pdist-sign diff, then p2pdist-sign sign"
    if state.drafts:
        return "p2pdist-sign publish DIR"
    first = min(rows, key=lambda row: row["days_left"])
    soon = [row for row in grants if row["days_left"] <= _SOON_DAYS]
    if first["days_left"] <= _SOON_DAYS:
        return f"p2pdist-sign renew, before {first['expires'][:10]}, when {role_words(first['role'])} expires"
    if soon:
        node, scope = soon[0]["node"], soon[0]["scope"]
        return f"p2pdist-sign grant {node} --scope {scope} …, before {soon[0]['expires'][:10]}"
    return f"nothing; the first to expire is {role_words(first['role'])}, on {first['expires'][:10]}"
