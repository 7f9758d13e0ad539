"""The program ``p2pdist-server``."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import cyclopts
import trio
from cyclopts import Parameter

import p2pdist
from p2pdist.config import load_config
from p2pdist.errors import P2PDistError, UsageError
from p2pdist.files import locked, write_atomic, write_secret
from p2pdist.logs import configure_logging, get_logger
from p2pdist.net.endpoints import format_endpoint
from p2pdist.node.program import run_program
from p2pdist.node.supervisor import notify_ready
from p2pdist.programs import EXIT_CODES, complain, shown_default
from p2pdist.server.api.app import make_app
from p2pdist.server.api.context import Api
from p2pdist.server.api.listener import serve_api
from p2pdist.server.apicertificate import ApiCertificate
from p2pdist.server.config import OnlineTable, ServerConfig
from p2pdist.server.initialise import TOKEN_NAME, add_api_token, initialise, open_online_key
from p2pdist.server.reload import reload_on_hangup
from p2pdist.server.serverhome import ServerHome
from p2pdist.server.service import open_service
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import ApiRole
from p2pdist.trust.keys import Ed25519Signer

_log = get_logger()
app = cyclopts.App(
    name="p2pdist-server",
    help="The admin server of a p2pdist fleet.",
    default_parameter=Parameter(show_default=shown_default),
    help_epilogue=EXIT_CODES,
    version=p2pdist.__version__,
    result_action="return_value",
)


@app.command
def init(
    *,
    data: Path,
    fleet: str,
    root: Path,
    online_key: Path,
    passphrase_file: Path,
    address: Annotated[list[str], Parameter(negative_iterable=())],
    api: str = "*:7600",
    api_host: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    origin_port: int = 7602,
    store: str = "",
) -> None:
    """Found a fleet: make the server's directory, its certificate authority and its configuration.

    Parameters
    ----------
    data
        A new directory for the server.
    fleet
        The fleet's name: a-z, 0-9 and '-'.
    root
        The trust root: metadata/1.root.json of the publication that `p2pdist-sign publish` made.
    online_key
        The sealed online key that `p2pdist-sign init` made; it is copied into the directory.
    passphrase_file
        A file with its passphrase, readable by its owner only; it is copied, too.
    address
        HOST:PORT where devices reach the server; can be given several times.
    api
        HOST:PORT where the API listens.
    api_host
        A further name or address of the API, for its certificate; can be given several times.
    origin_port
        The port of the server's own seed.
    store
        SQLAlchemy's URL of a database, such as postgresql+psycopg://user@host/name or
        mariadb+pymysql://user@host/name; by default an SQLite file in the data directory.
    """
    config = initialise(
        data,
        fleet=fleet,
        root=root,
        online_key=online_key,
        passphrase_file=passphrase_file,
        addresses=address,
        api_address=api,
        origin_port=origin_port,
        api_hosts=api_host or [],
        store_url=store,
    )
    port = api.rpartition(":")[2]
    host = address[0].rpartition(":")[0]
    print(f"The admin server of {fleet} is ready. Start it with:\n")
    print(f"    p2pdist-server run --config {config}\n")
    print("and then let the command line know it:\n")
    print(f"    p2pdist login https://{host}:{port} --token-file {data / TOKEN_NAME} --ca {data / 'ca.pem'}")


@app.command
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


@app.command
def token(*, config: Path, output: Path, name: str = "operator", role: ApiRole = "admin") -> None:
    """Make a token for the API, also when the server does not run.

    Parameters
    ----------
    config
        The configuration file.
    output
        The file to write the token to, readable by its owner only.
    name
        Whose it is; stands in the audit log.
    role
        reader looks, operator deploys and enrols, admin does everything.
    """
    if output.exists():
        raise UsageError(f"{output} exists already", hint="choose another file, or remove that one")
    loaded = load_config(config, ServerConfig, os.environ)
    store = FleetStore.open(loaded.store_url)
    try:
        write_secret(output, add_api_token(store, name, role, datetime.now(UTC)).encode() + b"\n")
    finally:
        store.close()
    print(f"{output} holds a new token with the role {role}")


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


def main() -> None:
    """Run the program; errors become a line for people and an exit code."""
    try:
        code = app()
    except P2PDistError as error:
        code = complain(error)
    sys.exit(code)
