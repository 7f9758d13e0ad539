"""Commands: status, refusals, audit, login."""

from __future__ import annotations

import time
from pathlib import Path

from p2pdist.cli.client import Client
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.output import say, show, show_facts
from p2pdist.cli.profile import Target, check_url, read_ca, read_token, save_profile
from p2pdist.cli.words import UNATTRIBUTED, ago, by_source, moment, size
from p2pdist.errors import UsageError
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.wire import api as wire


def status(*, common: Common = DEFAULT) -> None:
    """Show the fleet at a glance, and what is wrong with it."""
    with common.client() as client:
        answer = client.get("/status", wire.Status)
    now = time.time()
    facts = [
        ("fleet", answer.fleet),
        ("server", f"{answer.node}, p2pdist {answer.version}, started {ago(answer.started, now)}"),
        ("links", ", ".join(answer.addresses)),
        ("devices", f"{answer.devices_online} of {answer.devices} online, {answer.devices_revoked} revoked"),
        ("points", f"{answer.points_online} of {answer.points} online"),
        ("releases", str(answer.releases)),
        ("deployments", f"{answer.deployments_active} active"),
        ("devices fetched", _fetched(answer, "device")),
        ("points fetched", _fetched(answer, "point")),
        ("origin sent", size(answer.origin_sent_bytes)),
        ("refusals", str(answer.refusals)),
        ("signed until", moment(answer.metadata_expires)),
        ("disk free", _disk(answer)),
    ]
    facts += [("problem", problem) for problem in answer.problems]
    show_facts(answer, common.output, facts)


def refusals(*, limit: int = 50, common: Common = DEFAULT) -> None:
    """List what was refused for want of trust, newest first.

    Parameters
    ----------
    limit
        At most this many.
    """
    with common.client() as client:
        answer = client.get("/refusals", wire.RefusalList, limit=limit)
    rows = [
        (moment(r.at), r.name or r.node, r.kind, r.subject, r.reason, str(r.times)) for r in answer.refusals
    ]
    columns = ("at", "device", "kind", "what", "why", "times")
    show(answer, common.output, columns, rows, right=("times",), empty="nothing was refused")


def audit(*, limit: int = 50, common: Common = DEFAULT) -> None:
    """List who did what, newest first.

    Parameters
    ----------
    limit
        At most this many.
    """
    with common.client() as client:
        answer = client.get("/audit", wire.AuditList, limit=limit)
    rows = [(moment(e.at), e.actor, e.action, f"{e.subject} {e.detail}".strip()) for e in answer.entries]
    show(answer, common.output, ("at", "who", "did", "what"), rows)


def login(server: str, /, *, token_file: Path, ca: Path | None = None, enrolment: Path | None = None) -> None:
    """Store which server to talk to, after it has answered.

    Parameters
    ----------
    server
        The API's URL, https://HOST:7600.
    token_file
        A file with an API token, readable by you only.
    ca
        The certificate of the fleet's authority: ca.pem in the server's directory.
    enrolment
        An enrolment bundle, which holds that certificate too.
    """
    if (ca is None) == (enrolment is None):
        raise UsageError("give either --ca or --enrolment", hint="ca.pem lies in the server's directory")
    pem = read_ca(ca) if ca is not None else ""
    if enrolment is not None:
        pem = EnrolmentBundle.load(enrolment).ca_pem.decode()
    target = Target(server=check_url(server), token=read_token(token_file), ca_pem=pem)
    with Client(target) as client:
        answer = client.get("/status", wire.Status)
    path = save_profile(target)
    say(f"{server} serves the fleet {answer.fleet}; stored in {path}")


def _disk(answer: wire.Status) -> str:
    free = size(answer.disk_free_bytes)
    if not answer.withdrawn_bytes:
        return free
    return f"{free}; {size(answer.withdrawn_bytes)} of withdrawn content will be removed"


def _fetched(answer: wire.Status, receiver: str) -> str:
    received = {**answer.received.get(receiver, {}), UNATTRIBUTED: answer.unattributed.get(receiver, 0)}
    return by_source(received, answer.wasted.get(receiver, 0))
