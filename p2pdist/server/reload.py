"""Other rate limits without a restart: SIGHUP lets the server read them from its configuration file again.

Everything else in the file counts from the next start on.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import trio

from p2pdist.config import load_config
from p2pdist.errors import P2PDistError
from p2pdist.logs import get_logger
from p2pdist.server.config import ServerConfig
from p2pdist.server.service import Service, ServiceSettings

_log = get_logger()


async def reload_on_hangup(
    config: Path, service: Service, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Take the limits of groups and of the origin from *config* at each SIGHUP, until cancelled.

    A file that is wrong is logged and changes nothing.
    """
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            try:
                settings = await trio.to_thread.run_sync(_read, config)
            except P2PDistError as error:
                _log.error("rates.not_taken", reason=error.what, hint=error.hint)
                continue
            service.origin.set_rates(settings.origin.rates)
            await service.plane.rates_changed(settings.plane.rates)
            _log.info("rates.taken", groups=sorted(settings.plane.rates))


def _read(config: Path) -> ServiceSettings:
    return load_config(config, ServerConfig, os.environ).service_settings()
