"""Founding a fleet: the server's directory, its authority, its configuration, the first operator."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from p2pdist import limits
from p2pdist.core.listening import EVERYWHERE, listening_host
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded, storage_error, sync_directory, write_atomic, write_secret
from p2pdist.ids import FleetName, parse_fleet
from p2pdist.net.endpoints import format_endpoint, parse_endpoint
from p2pdist.server.serverhome import ServerHome
from p2pdist.server.tokens import new_token, token_id
from p2pdist.store import incidents, tokens
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import ApiRole, ApiTokenRecord
from p2pdist.trust.keys import Ed25519Signer, SealedKeyFile
from p2pdist.trust.online import check_online_key
from p2pdist.trust.publication import OnlineRepository
from p2pdist.trust.refusals import MALFORMED

CONFIG_NAME = "server.toml"
TOKEN_NAME = "operator.token"  # noqa: S105 - a file's name
_ONLINE_KEY, _ONLINE_PASSPHRASE = "online.key", "online.passphrase"
_STAGING = ".new"
_ROOT_HINT = "it is metadata/1.root.json of the publication that p2pdist-sign publish made"


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

    Everything is checked before the first file is written. What is written is built aside and moved into
    its place at the end, the configuration last, so that a call that failed can be repeated as it was.
    The online key and its passphrase are copied into the directory, for the user that the service runs as.

    Raises:
        UsageError: a file, a name or an address is wrong, or *data* is not empty.
        Unavailable: the disk or the database does not take it.
    """
    name = parse_fleet(fleet)
    for address in addresses:
        parse_endpoint(address)
    api = _parse_listening(api_address)
    trusted_root = read_bounded(root, bytes_max=limits.ROOT_BYTES_MAX)
    signer = open_online_key(online_key, passphrase_file)
    check_online_key(_parse_root(root, trusted_root), signer)
    if store_url:
        FleetStore.open(store_url).close()
    if data.exists() and any(path.name != _STAGING for path in data.iterdir()):
        raise UsageError(f"{data} is not empty", hint="choose a new directory for the admin server")
    config = _config_text(
        data=data.absolute(),
        addresses=addresses,
        api=api,
        api_hosts=api_hosts,
        origin_port=origin_port,
        store_url=store_url,
    )
    staging = data / _STAGING
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o750)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(mode=0o700)
        _build(staging, name, trusted_root, signer, store_url)
        write_secret(staging / _ONLINE_KEY, read_bounded(online_key, bytes_max=limits.KEY_FILE_BYTES_MAX))
        write_secret(
            staging / _ONLINE_PASSPHRASE, read_bounded(passphrase_file, bytes_max=limits.PROFILE_BYTES_MAX)
        )
        write_atomic(staging / CONFIG_NAME, config.encode(), mode=0o640)
        for path in sorted(staging.iterdir(), key=lambda path: path.name == CONFIG_NAME):
            path.rename(data / path.name)
        staging.rmdir()
        sync_directory(data)
    except OSError as error:
        raise storage_error(f"{data} could not be made", error) from error
    return data / CONFIG_NAME


def _build(
    directory: Path, fleet: FleetName, trusted_root: bytes, signer: Ed25519Signer, store_url: str
) -> None:
    now = datetime.now(UTC)
    home = ServerHome.create(directory, fleet, trusted_root, now)
    OnlineRepository(home.metadata, trusted_root, signer)
    write_atomic(directory / "ca.pem", home.authority.certificate_pem)
    store = FleetStore.open(store_url or f"sqlite:///{directory.absolute() / 'fleet.db'}")
    try:
        secret = add_api_token(store, "first operator", "admin", now)
    finally:
        store.close()
    write_secret(directory / TOKEN_NAME, secret.encode() + b"\n")


def _parse_root(path: Path, data: bytes) -> Root:
    """Read a trust root, and check that the people that it names have signed it."""
    try:
        metadata = Metadata[Any].from_bytes(data)
        root = metadata.signed
        if not isinstance(root, Root):
            raise UsageError(f"{path} is {root.type} metadata", hint=_ROOT_HINT)
        root.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, *MALFORMED) as error:
        raise UsageError(f"{path} is not a trust root ({error})", hint=_ROOT_HINT) from None
    return root


def open_online_key(key: Path, passphrase_file: Path) -> Ed25519Signer:
    """Open the sealed key that signs snapshot and timestamp.

    Raises:
        UsageError: a file is missing or others may read the passphrase, or it is the wrong one.
    """
    data = read_bounded(passphrase_file, bytes_max=limits.PROFILE_BYTES_MAX)
    if passphrase_file.stat().st_mode & 0o077:
        raise UsageError(f"{passphrase_file} may be read by others", hint=f"run: chmod 600 {passphrase_file}")
    sealed = SealedKeyFile.load(key)
    try:
        return sealed.open(data.rstrip(b"\r\n"))
    except UsageError as error:
        raise UsageError(
            f"{key} cannot be opened with {passphrase_file}: {error.what}", hint="put the right files there"
        ) from None


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


_WAYS_OUT = """\
# The way to vendors' mirrors, for `p2pdist fetch --points server`; its windows are those of [origin].
# [mirrors]
# region = "eu"
# ca_file = "/etc/p2pdist/mirrors-ca.pem"
# proxy = "http://proxy.example:3128"
# proxy_user = "server"
# proxy_password_file = "/etc/p2pdist/proxy"

# As whom the server asks a directory in polls that name no user, also on a schedule.
# [[directories]]
# url = "ldaps://dc.corp.example"
# user = "reader@corp.example"
# password_file = "/etc/p2pdist/directory"
# ca_file = "/etc/p2pdist/directory-ca.pem"
"""


def _config_text(
    *,
    data: Path,
    addresses: Sequence[str],
    api: tuple[str, int],
    api_hosts: Sequence[str],
    origin_port: int,
    store_url: str,
) -> str:
    ends = [parse_endpoint(address) for address in addresses]
    link_host, link_port = listening_host(*(host for host, _ in ends)), ends[0][1]
    listed = ", ".join(_quoted(format_endpoint(*end)) for end in ends)
    hosts = ", ".join(_quoted(host) for host in api_hosts)
    store = f"url = {_quoted(store_url)}" if store_url else '# url = "postgresql+psycopg://user@host/name"'
    return f"""# The admin server of this fleet. p2pdist-server run --config THIS FILE
# Any key can be overridden by an environment variable: P2PDIST_LINK_PORT=7601

[server]
data = {_quoted(str(data))}

[store]
{store}

[link]  # devices and distribution points dial this; host "*" is every address, IPv4 and IPv6
addresses = [{listed}]
host = {_quoted(link_host)}
port = {link_port}
# heartbeat_s = 300

[api]  # operators' command lines connect here
host = {_quoted(listening_host(api[0]))}
port = {api[1]}
hosts = [{hosts}]  # further names in its certificate

[origin]  # the server's own seed
host = {_quoted(link_host)}
port = {origin_port}
# up_bytes_per_s = 2500000
# windows = ["08:00-18:00=250000"]
# keep_withdrawn_s = 604800  # content that no signed release names any more

{_WAYS_OUT}
[online]  # signs snapshot and timestamp
key = {_quoted(str(data / _ONLINE_KEY))}
passphrase_file = {_quoted(str(data / _ONLINE_PASSPHRASE))}

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


def _parse_listening(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if host == EVERYWHERE:
        return EVERYWHERE, parse_endpoint(f"localhost:{port}")[1]
    return parse_endpoint(text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
