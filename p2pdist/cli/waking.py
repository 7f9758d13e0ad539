"""The command that wakes resting devices."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import Parameter

from p2pdist.cli.client import segment
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.output import say, show_json
from p2pdist.cli.words import life
from p2pdist.errors import Unavailable, UsageError
from p2pdist.wire import api as wire

_LOOK_S = 0.5


def wake(
    *devices: Annotated[str, Parameter(name="DEVICE")],
    magic: Annotated[bool, Parameter(negative=())] = False,
    wait: bool = False,
    timeout: str = "2m",
    common: Common = DEFAULT,
) -> None:
    """Have resting devices come. Nothing is wanted of them; they rest again when there is nothing to do.

    Parameters
    ----------
    devices
        Their names, their ids, or the beginnings of their ids.
    magic
        They need not rest: their machines are off, and get Wake-on-LAN packets from points with the duty
        `push` near them, and from the admin server, to the interfaces that they told of while online.
    wait
        Wait until all of them are online.
    timeout
        How long to wait: 90s, 30m, 12h.
    """
    if not devices:
        raise UsageError("no device is named", hint="p2pdist device list shows which ones rest")
    try:
        until = time.monotonic() + life(timeout)
    except ValueError as error:
        raise UsageError(str(error)) from None
    with common.client() as client:
        for name in devices:
            client.post(f"/devices/{segment(name)}/{'boot' if magic else 'wake'}", wire.Done)
        waiting = list(devices) if wait else []
        while waiting and time.monotonic() < until:
            time.sleep(_LOOK_S)
            waiting = [
                name
                for name in waiting
                if client.get(f"/devices/{segment(name)}", wire.DeviceDetail).device.state != "online"
            ]
    if waiting:
        raise Unavailable(
            f"not online after {timeout}: {', '.join(waiting)}",
            hint="a machine that is off wakes by Wake-on-LAN only where its firmware allows it",
        )
    if common.output == "json":
        show_json(wire.Done())
    else:
        number = "1 device is" if len(devices) == 1 else f"{len(devices)} devices are"
        say(f"{number} {'online' if wait else 'being woken'}")
