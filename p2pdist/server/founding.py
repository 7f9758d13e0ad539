"""The command that founds a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from p2pdist.server.initialise import TOKEN_NAME, initialise


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
