"""Commands: releases from their vendors' mirrors."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.tasks import begin
from p2pdist.cli.when import AT_ONCE, When
from p2pdist.wire.mirroring import ReadMirrors, Share


def fetch(
    *targets: Annotated[str, Parameter(name="TARGET")],
    points: Annotated[list[str], Parameter(negative_iterable=())],
    share: Share = "fleet",
    when: When = AT_ONCE,
    wait: bool = False,
    timeout: str = "12h",
    common: Common = DEFAULT,
) -> None:
    """Have distribution points get releases from the mirrors that their signed targets name.

    Nothing of them comes from the admin server meanwhile. What one point has read is passed on to the others.

    Parameters
    ----------
    targets
        Target paths, product@version, or patterns such as 'stable/app/*': the newest release of each product
        and platform that fits, and that has mirrors.
    points
        A distribution point, a group (the points whose scope is in it, or else those that serve it), or
        `server` for the admin server's own content; can be given several times.
    share
        fleet: each part is read once for all of these nodes; site: each of them reads everything for itself.
    wait
        Watch until it has ended, and show what came of each release and mirror. Exit code 6 unless every node
        has all of it.
    timeout
        How long to watch: 90s, 30m, 12h.
    """
    work = ReadMirrors(targets=list(targets), share=share)
    begin(common, work, points, when=when, wait=wait, timeout=timeout)
