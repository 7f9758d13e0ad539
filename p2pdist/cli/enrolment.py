"""Commands: the enrolment bundle, and enrolment by files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from msgspec.structs import replace

from p2pdist.cli.common import DEFAULT, Common, check_new
from p2pdist.cli.output import say
from p2pdist.errors import UsageError
from p2pdist.files import write_atomic
from p2pdist.ids import GroupPath, NodeId
from p2pdist.net.endpoints import parse_endpoint
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.trust.enrolmentfiles import EnrolmentAnswer, EnrolmentRequest
from p2pdist.wire import api as wire

enrolment = App(name="enrolment", help="The enrolment bundle, and enrolment by files.")


@enrolment.default
def enrolment_bundle(
    *,
    to: Path | None = None,
    address: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    common: Common = DEFAULT,
) -> None:
    """Get the enrolment bundle: with a token, it makes a machine a member of the fleet.

    Parameters
    ----------
    to
        The file to write; standard output without it.
    address
        HOST:PORT of a gateway, for machines that cannot reach the admin server; instead of its own
        addresses. Can be given several times.
    """
    with common.client() as client:
        data = client.get_bytes("/enrolment")
    if address:
        for each in address:
            parse_endpoint(each)
        data = replace(EnrolmentBundle.decode(data), addresses=tuple(address)).encode()
    if to is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    write_atomic(to, data)
    say(f"{to} and a token enrol a device: p2pdist-agent enrol --bundle {to} --token-file FILE")


@enrolment.command(name="answer")
def enrolment_answer(request: Path, /, *, to: Path, common: Common = DEFAULT) -> None:
    """Enrol a machine that may dial nobody, by the file that it wrote. The answer goes back to it.

    Parameters
    ----------
    request
        What `p2pdist-seed enrol --request FILE` wrote there; the token in it is sealed.
    to
        The file to write the answer to.
    """
    check_new(to)
    asked = EnrolmentRequest.load(request)
    with common.client() as client:
        fleet = client.get("/status", wire.Status).fleet
        if fleet != asked.fleet:
            raise UsageError(f"{asked.name} asks to join {asked.fleet}, and this is {fleet}")
        made = client.post("/enrolments", wire.EnrolledNode, wire.NewEnrolment(sealed=asked.sealed))
    EnrolmentAnswer(
        fleet=asked.fleet,
        node=NodeId(made.node),
        group=GroupPath(made.group),
        certificate_pem=made.certificate.encode(),
    ).save(to)
    say(f"{asked.name} ({made.node}) is a member, in {made.group}; bring {to} to it:")
    say(f"    p2pdist-seed enrol --bundle FILE --answer {to.name}")
