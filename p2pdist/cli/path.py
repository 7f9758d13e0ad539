"""Command: how a device is reached, what was tried, and what stands between."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

import msgspec
import trio
from cyclopts import Parameter

from p2pdist import limits
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.output import console, print_facts, say, show_json, table
from p2pdist.cli.visit import NO_PATH, Visit, Visitor
from p2pdist.core.paths import obstacle
from p2pdist.core.session import PathKind
from p2pdist.errors import UsageError
from p2pdist.net.framing import FrameSplitter
from p2pdist.net.natprobe import probe_nats
from p2pdist.net.punching import Attempt
from p2pdist.wire import api as wire
from p2pdist.wire import codec
from p2pdist.wire.nat import NatBehaviour
from p2pdist.wire.services import NetworkFacts, Reachability

_MOVE_S = 2.0
_WAIT_S_MAX = 300.0
_READ_BYTES = 64 * limits.KIB


class PairTried(msgspec.Struct, frozen=True, kw_only=True):
    """Two addresses between which a packet was sent, and what came of it."""

    local: str
    remote: str
    outcome: str


class AttemptMade(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a better path. ``seconds`` is all of it, ``phases`` its parts."""

    path: str
    seconds: float
    phases: dict[str, float]
    failure: str
    local: list[str]
    remote: list[str]
    pairs: list[PairTried]


class NatSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What stands between one side and one gateway, in words of RFC 4787; several where it is not sure."""

    gateway: str
    local: str
    mapped: str
    mapping: list[str]
    filtering: list[str]
    hairpinning: bool | None
    description: str


class PathAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How a device is reached. ``path`` is direct, punched, relayed or, when all are lost, none; ``reason``
    says why it is that one.

    ``opened_ms`` is the time until the relayed session stood, ``seconds`` from then until it had moved to
    a better path; None if it did not. ``here`` are the NATs before this machine, ``there`` those before the
    device.
    """

    device: str
    node: str
    path: str
    reason: str
    opened_ms: float
    seconds: float | None
    relayed_through: list[wire.Carrier]
    attempts: list[AttemptMade]
    here: list[NatSeen]
    there: list[NatSeen]


def path(
    device: Annotated[str, Parameter(name="DEVICE")],
    /,
    *,
    nat: bool = True,
    wait: float = 12.0,
    common: Common = DEFAULT,
) -> None:
    """Show how a device is reached: the path in use, what was tried, and the NATs on both sides.

    A session begins relayed, through the admin server and the distribution points that carry the device, and
    moves to a better path as soon as there is one:

    direct: the two sides reach each other at their own addresses.
    punched: a NAT stands between, and lets both sides' packets through because both have sent some.
    relayed: neither works; the reason says what is in the way.

    What a NAT does is said in the words of RFC 4787. Its mapping decides at which address and port others
    see the device; one that depends on the other side's address (a "symmetric" NAT) leaves nobody able to
    know the port before. Its filtering decides whom it lets in. To look at the NATs takes up to ten seconds.

        p2pdist path till-7
        p2pdist path till-7 --no-nat --output json

    Parameters
    ----------
    device
        Its name, its id, or the beginning of its id.
    nat
        Look at the NATs, too.
    wait
        How many seconds to wait at most for a better path, and for what is found out about the NATs.
    """
    if not 0 < wait <= _WAIT_S_MAX:
        raise UsageError(f"--wait {wait:g} makes no sense", hint=f"use up to {_WAIT_S_MAX:g} seconds")
    answer = trio.run(_look, common, device, nat, wait)
    if common.output == "json":
        show_json(answer)
    else:
        _show(answer)


async def _look(common: Common, device: str, nat: bool, wait_s: float) -> PathAnswer:
    begun = trio.current_time()
    visitor = Visitor(common.target())
    async with visitor.visit(device, Reachability(), better_after_s=0.0) as visit:
        return await look(visit, opened_s=trio.current_time() - begun, nat=nat, wait_s=wait_s)


async def look(visit: Visit, *, opened_s: float, nat: bool, wait_s: float) -> PathAnswer:
    """Wait for the outcome of the first attempt, and for what is known of the NATs, for so long at most."""
    opened_at = trio.current_time()
    here: list[NatBehaviour] = []
    facts = NetworkFacts()
    seconds: float | None = None
    heard = trio.Event()

    async def listen() -> None:
        """Receive until the end: signals of the device come in between."""
        nonlocal facts
        splitter = FrameSplitter(limits.FRAME_BYTES_MAX)
        while data := await visit.conversation.receive_some(_READ_BYTES):
            for frame in splitter.feed(data):
                facts = codec.decode(frame, NetworkFacts)
                heard.set()
        heard.set()

    async def probe() -> None:
        here.extend(await probe_nats(visit.punching.servers))

    async def move() -> None:
        nonlocal seconds
        attempt = await visit.punching.wait_attempted()
        if attempt.path is not None:
            with trio.move_on_after(_MOVE_S):
                await visit.stream.wait_path("direct", "punched")
                seconds = trio.current_time() - opened_at

    async with trio.open_nursery() as listening:
        listening.start_soon(listen)
        async with trio.open_nursery() as looking:
            looking.cancel_scope.deadline = opened_at + wait_s
            looking.start_soon(move)
            if nat:
                looking.start_soon(probe)
                looking.start_soon(heard.wait)
        listening.cancel_scope.cancel()
    attempts = visit.punching.attempts
    return PathAnswer(
        device=visit.info.name,
        node=visit.info.node,
        path=visit.stream.path or NO_PATH,
        reason=reason_for(
            visit.stream.path,
            attempts,
            opened={each.kind for each in visit.stream.statistics()},
            obstacle=obstacle(here, facts.nats),
            wait_s=wait_s,
        ),
        opened_ms=round(opened_s * 1e3, 1),
        seconds=round(seconds, 3) if seconds is not None else None,
        relayed_through=list(visit.info.carriers),
        attempts=[_made(attempt) for attempt in attempts],
        here=[_seen(each) for each in here],
        there=[_seen(each) for each in facts.nats],
    )


def reason_for(
    path: PathKind | None,
    attempts: Sequence[Attempt],
    *,
    opened: Collection[PathKind],
    obstacle: str | None,
    wait_s: float,
) -> str:
    """Say why a session uses the path that it uses now.

    Args:
        path: That path; None when all are lost.
        attempts: What was tried, the newest last. The path may have come of an older one.
        opened: The kinds of all paths that are open, in use or not.
        obstacle: What the NATs say about why none can be better, if they say it.
        wait_s: For how long it was waited.
    """
    if path is None:
        return f"every path is lost; without one the session ends after {limits.SESSION_PATHLESS_S:g} s"
    if path != "relayed":
        made = [attempt for attempt in attempts if attempt.path == path]
        return _way(made[-1]) if made else "it is the best that is open"
    if not attempts:
        return f"nothing better in {wait_s:g} s"
    last = attempts[-1]
    if last.path is None:
        return obstacle or last.report.failure
    fate = "has not taken over yet" if last.path in opened else "was lost, and is looked for again"
    return f"the {last.path} path {fate} ({_way(last)})"


def _way(attempt: Attempt) -> str:
    """Say by which way the path of an attempt goes."""
    pair = attempt.report.pair
    assert pair is not None
    if attempt.path == "direct":
        return f"no NAT between {pair[0].endpoint} and {pair[1].endpoint}"
    ours = "a NAT shows this machine as" if pair[0].kind != "host" else "this machine is"
    theirs = "a NAT shows the device as" if pair[1].kind != "host" else "the device is"
    return f"{ours} {pair[0].endpoint}, {theirs} {pair[1].endpoint}, and packets get through both ways"


def _made(attempt: Attempt) -> AttemptMade:
    report = attempt.report
    return AttemptMade(
        path=attempt.path or "",
        seconds=attempt.seconds,
        phases={str(phase): round(seconds, 3) for phase, seconds in report.seconds.items()},
        failure=report.failure,
        local=list(map(str, report.local)),
        remote=list(map(str, report.remote)),
        pairs=[
            PairTried(local=str(pair.local), remote=str(pair.remote), outcome=pair.outcome)
            for pair in report.pairs
        ],
    )


def _seen(behaviour: NatBehaviour) -> NatSeen:
    return NatSeen(
        gateway=str(behaviour.gateway),
        local=str(behaviour.local),
        mapped=str(behaviour.mapped or ""),
        mapping=list(behaviour.mapping),
        filtering=list(behaviour.filtering),
        hairpinning=behaviour.hairpinning,
        description=behaviour.describe(),
    )


def _show(answer: PathAnswer) -> None:
    through = [*(carrier.name for carrier in reversed(answer.relayed_through)), answer.device]
    better = next((attempt.path for attempt in answer.attempts if attempt.path), "")
    moved = f", {better} {answer.seconds:.2f} s after it stood" if answer.seconds is not None else ""
    facts = [
        ("device", f"{answer.device} ({answer.node})"),
        ("path", answer.path),
        ("reason", answer.reason),
        ("session", f"relayed after {answer.opened_ms:.0f} ms{moved}"),
        ("relayed", " → ".join(["this machine", "admin server", *through])),
    ]
    facts += [("NAT here", each.description) for each in answer.here]
    facts += [("NAT there", each.description) for each in answer.there]
    print_facts(facts)
    for attempt in answer.attempts[-1:]:
        say("\ncandidates tried" if attempt.pairs else f"\nno candidates tried: {attempt.failure}")
        if attempt.pairs:
            rows = [(pair.local, pair.remote, pair.outcome) for pair in attempt.pairs]
            console().print(table(("here", "there", "outcome"), rows))
