"""The command that serves a fleet: everything that the server is made of, put together."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path

import trio

from p2pdist.config import load_config
from p2pdist.errors import UsageError
from p2pdist.files import locked, write_atomic
from p2pdist.logs import configure_logging, get_logger
from p2pdist.net.endpoints import format_endpoint
from p2pdist.node.program import run_program
from p2pdist.node.supervisor import notify_ready
from p2pdist.server.api.app import make_app
from p2pdist.server.api.context import Api
from p2pdist.server.api.listener import serve_api
from p2pdist.server.apicertificate import ApiCertificate
from p2pdist.server.config import OnlineTable, ServerConfig
from p2pdist.server.initialise import open_online_key
from p2pdist.server.reload import reload_on_hangup
from p2pdist.server.serverhome import ServerHome
from p2pdist.server.service import open_service
from p2pdist.store.fleetstore import FleetStore
from p2pdist.trust.keys import Ed25519Signer

_log = get_logger()


def run(*, config: Path) -> int:
    """Serve the fleet until SIGTERM or SIGINT. SIGHUP makes other rate limits in the file count at once.

    Parameters
    ----------
    config
        The configuration file that `init` wrote.
    """
    loaded = load_config(config, ServerConfig, os.environ)
    configure_logging("p2pdist-server", loaded.log.level, json=loaded.log.json)
    return run_program(partial(_locked, loaded, config))


async def _locked(config: ServerConfig, path: Path) -> None:
    with locked(config.server.data / "server.lock", what=f"the admin server in {config.server.data}"):
        await _serve(config, path)


async def _serve(config: ServerConfig, path: Path) -> None:
    home = await trio.to_thread.run_sync(ServerHome, config.server.data)
    online = await trio.to_thread.run_sync(open_online_keys, config.online)
    store = await trio.to_thread.run_sync(FleetStore.open, config.store_url)
    try:
        async with (
            open_service(home, config.service_settings(), store, *online) as service,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(reload_on_hangup, path, service)
            link = await nursery.start(service.run)
            api = Api(service, addresses=config.link.addresses, started=int(time.time()))
            certificate = ApiCertificate(home, config.api_hosts, config.certificates.life_s)
            start_api = partial(
                serve_api,
                make_app(api),
                host=config.api.host,
                port=config.api.port,
                identity=certificate.identity,
            )
            bound = await nursery.start(start_api)
            _ready(home, link=link, api=bound, origin=(config.origin.host, service.origin.port))
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await trio.to_thread.run_sync(store.close)


def open_online_keys(table: OnlineTable) -> list[Ed25519Signer]:
    """Open the online key, and the one that will replace it. Raises UsageError as for one."""
    keys = [open_online_key(table.key, table.passphrase_file)]
    if (table.next_key is None) != (table.next_passphrase_file is None):
        raise UsageError("[online] has only one of next_key and next_passphrase_file", hint="set both")
    if table.next_key is not None and table.next_passphrase_file is not None:
        keys.append(open_online_key(table.next_key, table.next_passphrase_file))
    return keys


def _ready(home: ServerHome, *, link: tuple[str, int], api: tuple[str, int], origin: tuple[str, int]) -> None:
    """Say where the server listens: in the log, in a file for scripts, and to systemd."""
    addresses = {
        name: format_endpoint(*at) for name, at in (("link", link), ("api", api), ("origin", origin))
    }
    write_atomic(home.root / "listening.json", json.dumps({**addresses, "pid": os.getpid()}).encode())
    _log.info("server.ready", fleet=home.fleet, node=home.key.node, **addresses)
    notify_ready(f"serving {home.fleet} on {addresses['link']}")
