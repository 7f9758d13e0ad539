"""The command of a node's programs that makes the machine a member of the fleet."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

from p2pdist.errors import P2PDistError, UsageError
from p2pdist.node.enrol import ask_in_writing, take_answer
from p2pdist.node.enrol import enrol as enrol_node
from p2pdist.node.handover import read_handover
from p2pdist.programs import complain
from p2pdist.trust.enrolmentfiles import EnrolmentAnswer


def enrol(
    *,
    bundle: Path,
    token_file: Path | None = None,
    request: Path | None = None,
    answer: Path | None = None,
    data: Path = Path("/var/lib/p2pdist"),
    name: str = "",
    machine: str = "",
    local_host: str = "",
) -> int:
    """Make this machine a member of the fleet, and print its node id. Repeat it safely: the key is kept.

    Where it may dial nobody, a file goes to the operator (`p2pdist enrolment answer`) and another comes back.

    Parameters
    ----------
    bundle
        The enrolment bundle that the operator handed out (`p2pdist enrolment`); - reads standard input.
    token_file
        A file with an enrolment token, readable by its owner only (`p2pdist token add GROUP`). - reads
        standard input; its first line, where the bundle follows there.
    request
        Dial nobody: write the request to this file.
    answer
        Dial nobody: take the answer to that request from this file.
    data
        The node's directory.
    name
        What people call the machine; its host name by default.
    machine
        What tells this machine from a clone; made from /etc/machine-id by default.
    local_host
        The address to dial from; the system's choice by default.
    """
    try:
        fleet, token = read_handover(bundle, token_file)
        if answer is not None:
            home = take_answer(data, fleet, EnrolmentAnswer.load(answer), now=datetime.now(UTC))
        elif not token:
            raise UsageError("an enrolment needs a token", hint="give it --token-file FILE")
        elif request is not None:
            asked = ask_in_writing(data, fleet, token, name=name or None, machine=machine or None)
            asked.save(request)
            print(f"{asked.node} asks to join the fleet {asked.fleet}: {request}")
            print(f"  next: bring it to the operator, p2pdist enrolment answer {request.name} --to answer,")
            print("        and the answer here: enrol again, with --answer instead of token and request")
            return 0
        else:
            home = trio.run(
                partial(
                    enrol_node,
                    data,
                    fleet,
                    token,
                    name=name or None,
                    machine=machine or None,
                    local_host=local_host or None,
                )
            )
    except P2PDistError as error:
        return complain(error)
    print(f"{home.node} is a member of the fleet {home.fleet}, in the group {home.certificate.group}")
    return 0
