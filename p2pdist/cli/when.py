"""The options of every command that makes a task: when its runs begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from p2pdist.cli.words import life
from p2pdist.errors import UsageError
from p2pdist.wire import api as wire
from p2pdist.wire.work import AnyWork


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """When the runs of a task begin: at once, and once, unless one of the first options says otherwise.

    Attributes:
        every: A schedule, as a cron line.
        zone: The time zone of the schedule.
        after: The id of a task; a run begins after each run of that which every node has done.
        on_metadata: A run begins when newer metadata is published.
        window: In which a node must have begun, or it leaves the run.
        spread: Within which the nodes begin, each at a moment of its own.
    """

    every: Annotated[str, Parameter(help="on a schedule, a cron line: '30 2 * * *' is 2:30 each night")] = ""
    zone: Annotated[str, Parameter(help="the time zone of the schedule")] = "UTC"
    after: Annotated[str, Parameter(help="after each run of this task that all of its nodes have done")] = ""
    on_metadata: Annotated[
        bool, Parameter(negative=(), help="when something new is published: p2pdist publish")
    ] = False
    window: Annotated[str, Parameter(help="a node that has not begun by then leaves it: 30m, 12h")] = "1h"
    spread: Annotated[str, Parameter(help="nodes begin within so long, not all at once: 90s, 30m")] = ""

    @property
    def waits(self) -> bool:
        """Whether the first run does not begin at once."""
        return bool(self.every or self.after or self.on_metadata)

    def task(self, work: AnyWork, nodes: list[str]) -> wire.NewTask:
        """Return the task that does *work* then. Raises UsageError when an option makes no sense."""
        try:
            window_s, spread_s = life(self.window), life(self.spread) if self.spread else 0
        except ValueError as error:
            raise UsageError(str(error)) from None
        return wire.NewTask(
            work=work,
            nodes=nodes,
            window_s=window_s,
            spread_s=spread_s,
            schedule=self.every,
            zone=self.zone,
            after=self.after,
            on_metadata=self.on_metadata,
        )


AT_ONCE = When()
