"""Commands: finding the devices of a network."""

from __future__ import annotations

from typing import Annotated, cast, get_args

from cyclopts import Parameter

from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.tasks import begin
from p2pdist.cli.when import AT_ONCE, When
from p2pdist.errors import UsageError
from p2pdist.wire.polling import Poll, PollMethod

_METHODS = get_args(PollMethod)


def discover(
    *ranges: Annotated[str, Parameter(name="RANGE")],
    via: Annotated[list[str], Parameter(negative_iterable=())],
    exclude: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    method: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    port: Annotated[list[int] | None, Parameter(negative_iterable=())] = None,
    per_s: int = 200,
    when: When = AT_ONCE,
    wait: bool = False,
    timeout: str = "1h",
    common: Common = DEFAULT,
) -> None:
    """Find out which addresses of a network answer, asked by a distribution point that stands there.

    Parameters
    ----------
    ranges
        IPv4 networks or addresses: 10.1.0.0/24, 10.1.0.7. Without any: whom the node's own segments know.
    via
        The distribution point that asks, or `server` for the admin server itself; can be given several times.
        A point needs the duty `discovery` in its grant.
    exclude
        A network or address not to ask; can be given several times.
    method
        echo (ICMP), neighbours (who answered ARP on the node's own segments), multicast (who answers on
        its own segments over IPv6), connect (TCP), reverse (names in the DNS), netbios (Windows names), mdns
        (Zeroconf), wsd (WS-Discovery); can be given several times. By default echo and neighbours, without
        ranges neighbours and multicast.
    port
        A TCP port for the method connect; can be given several times. By default 22, 443, 445 and 3389.
    per_s
        At most so many questions a second, up to 1000; on a segment of the node itself up to 200.
    wait
        Watch until it has ended, and show what was found. Exit code 6 unless every node has done all of it.
    timeout
        How long to watch: 90s, 30m, 12h.
    """
    chosen = method or (["echo", "neighbours"] if ranges else ["neighbours", "multicast"])
    if unknown := [each for each in chosen if each not in _METHODS]:
        raise UsageError(f"{unknown[0]!r} is not a method", hint=f"there are {', '.join(_METHODS)}")
    work = Poll(
        ranges=list(ranges),
        excluded=exclude or [],
        methods=cast(list[PollMethod], chosen),
        per_s=per_s,
        **({"ports": port} if port else {}),
    )
    begin(common, work, via, when=when, wait=wait, timeout=timeout)
