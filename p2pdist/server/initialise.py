"""Founding a fleet: the server's directory, its authority, its configuration, the first operator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded, write_atomic, write_secret
from p2pdist.ids import parse_fleet
from p2pdist.net.endpoints import format_endpoint, parse_endpoint
from p2pdist.server.serverhome import ServerHome
from p2pdist.server.tokens import new_token, token_id
from p2pdist.store import incidents, tokens
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import ApiRole, ApiTokenRecord
from p2pdist.trust.keys import Ed25519Signer, SealedKeyFile
from p2pdist.trust.publication import OnlineRepository

CONFIG_NAME = "server.toml"
TOKEN_NAME = "operator.token"  # noqa: S105 - a file's name


def initialise(
    data: Path,
    *,
    fleet: str,
    root: Path,
    online_key: Path,
    passphrase_file: Path,
    addresses: Sequence[str],
    api_address: str,
    origin_port: int,
    api_hosts: Sequence[str],
    store_url: str,
) -> Path:
    """Make the directory of a new admin server, ready to run; return its configuration file.

    Everything is checked before the first file is written. The configuration is written last: without
    it the directory is unfinished, and the call can be repeated after removing it.

    Raises:
        UsageError: a file, a name or an address is wrong, or *data* is not empty.
        Unavailable: the disk or the database does not take it.
    """
    name = parse_fleet(fleet)
    for address in addresses:
        parse_endpoint(address)
    api_host, api_port = parse_endpoint(api_address)
    trusted_root = read_bounded(root, bytes_max=limits.ROOT_BYTES_MAX)
    open_online_key(online_key, passphrase_file)
    if data.exists() and any(data.iterdir()):
        raise UsageError(f"{data} is not empty", hint="choose a new directory for the admin server")
    data.mkdir(parents=True, exist_ok=True, mode=0o750)
    now = datetime.now(UTC)
    home = ServerHome.create(data, name, trusted_root, now)
    OnlineRepository(home.metadata, trusted_root, open_online_key(online_key, passphrase_file))
    write_atomic(data / "ca.pem", home.authority.certificate_pem)
    store = FleetStore.open(store_url or f"sqlite:///{data.absolute() / 'fleet.db'}")
    try:
        write_secret(data / TOKEN_NAME, add_api_token(store, "first operator", "admin", now).encode() + b"\n")
    finally:
        store.close()
    config = _config_text(
        data=data.absolute(),
        addresses=addresses,
        api=(api_host, api_port),
        api_hosts=api_hosts,
        origin_port=origin_port,
        online_key=online_key.absolute(),
        passphrase_file=passphrase_file.absolute(),
        store_url=store_url,
    )
    write_atomic(data / CONFIG_NAME, config.encode(), mode=0o640)
    return data / CONFIG_NAME


def open_online_key(key: Path, passphrase_file: Path) -> Ed25519Signer:
    """Open the sealed key that signs snapshot and timestamp.

    Raises:
        UsageError: a file is missing or others may read the passphrase, or it is the wrong one.
    """
    data = read_bounded(passphrase_file, bytes_max=limits.PROFILE_BYTES_MAX)
    if passphrase_file.stat().st_mode & 0o077:
        raise UsageError(f"{passphrase_file} may be read by others", hint=f"run: chmod 600 {passphrase_file}")
    return SealedKeyFile.load(key).open(data.rstrip(b"\r\n"))


def add_api_token(store: FleetStore, name: str, role: ApiRole, now: datetime) -> str:
    """Make a token for the API, recorded in the audit log; return its secret. Blocking."""
    secret = new_token()
    at = int(now.timestamp())
    record = ApiTokenRecord(id=token_id(), name=name, role=role, expires=None, created=at)
    store.write_now(tokens.add_api_token, secret, record)
    store.write_now(
        incidents.add_audit,
        at=at,
        actor=f"uid {os.getuid()} at the server",
        action="api-token.add",
        subject=f"{record.id} {name}",
    )
    return secret


def _config_text(
    *,
    data: Path,
    addresses: Sequence[str],
    api: tuple[str, int],
    api_hosts: Sequence[str],
    origin_port: int,
    online_key: Path,
    passphrase_file: Path,
    store_url: str,
) -> str:
    link_host, link_port = parse_endpoint(addresses[0])
    listed = ", ".join(_quoted(format_endpoint(*parse_endpoint(address))) for address in addresses)
    hosts = ", ".join(_quoted(host) for host in api_hosts)
    store = f"url = {_quoted(store_url)}" if store_url else '# url = "postgresql+psycopg://user@host/name"'
    return f"""# The admin server of this fleet. p2pdist-server run --config THIS FILE
# Any key can be overridden by an environment variable: P2PDIST_LINK_PORT=7601

[server]
data = {_quoted(str(data))}

[store]
{store}

[link]  # devices and distribution points dial this
addresses = [{listed}]
host = {_quoted(_listen_host(link_host))}
port = {link_port}
# heartbeat_s = 300

[api]  # operators' command lines connect here
host = {_quoted(_listen_host(api[0]))}
port = {api[1]}
hosts = [{hosts}]  # further names in its certificate

[origin]  # the server's own seed
host = {_quoted(_listen_host(link_host))}
port = {origin_port}
# up_bytes_per_s = 2500000
# windows = ["08:00-18:00=250000"]

[online]  # signs snapshot and timestamp
key = {_quoted(str(online_key))}
passphrase_file = {_quoted(str(passphrase_file))}

[certificates]
# life_s = 86400

# Bytes per second for the nodes of a group with its subgroups: over the WAN, and within the site.
# systemctl reload p2pdist-server makes other limits count at once, those of [origin] too.
# [[rates]]
# group = "/branch"
# wan_down = 1000000
# windows = ["08:00-18:00 wan=250000 site=2000000"]

[log]
level = "info"
json = false
"""


def _listen_host(host: str) -> str:
    """Loopback addresses are listened on as they are; for anything else, every address is."""
    if host in ("localhost", "::1") or host.startswith("127."):
        return "127.0.0.1" if host == "localhost" else host
    return "::" if ":" in host else "0.0.0.0"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
