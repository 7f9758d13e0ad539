"""When a task is due next: a cron line (crontab(5)), read in the time of a zone. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from p2pdist.errors import UsageError


def next_time(schedule: str, zone: str, after: int) -> int | None:
    """Return the first moment after Unix time *after* that *schedule* names; None if there is no more.

    Where the clocks of *zone* are put forward, what would be in the gap is after it; where they are put back,
    what would be twice is once.

    Raises:
        UsageError: the schedule is no cron line, or the zone is not known.
    """
    try:
        begin = datetime.fromtimestamp(after, UTC).astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"{zone[:60]!r} is not a time zone", hint="write it as Europe/Berlin") from None
    try:
        return int(next(CronSim(schedule, begin)).timestamp())
    except CronSimError as error:
        raise UsageError(
            f"{schedule[:60]!r} is not a schedule ({error})",
            hint="write minute, hour, day, month and weekday: '30 2 * * 1-5' is 2:30 on working days",
        ) from None
    except StopIteration:
        return None
