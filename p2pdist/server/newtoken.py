"""The command that makes a token for the API, beside a server that runs or does not."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from p2pdist.config import load_config
from p2pdist.errors import UsageError
from p2pdist.files import write_secret
from p2pdist.server.config import ServerConfig
from p2pdist.server.initialise import add_api_token
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import ApiRole


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
