"""The admin server's configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.core.listening import EVERYWHERE
from p2pdist.core.rates import BytesPerSecond, RatesTable, parse_window
from p2pdist.errors import UsageError
from p2pdist.ids import parse_group
from p2pdist.net.endpoints import parse_endpoint
from p2pdist.node.directorysettings import Directories
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.node.stuntable import StunTable
from p2pdist.server.control.ports import PlaneSettings
from p2pdist.server.origin import OriginSettings
from p2pdist.server.service import ServiceSettings
from p2pdist.swarm.tuning import REQUESTS

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[int, Meta(ge=1, le=365 * 24 * 3600)]
CertificateSeconds = Annotated[int, Meta(ge=600, le=365 * 24 * 3600)]
"""A shorter life would be spent on renewals."""


class ServerTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[server]``: where its files are."""

    data: Path


class StoreTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[store]``: the database; empty is an SQLite file in the data directory."""

    url: str = ""


class LinkTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[link]``: where devices and distribution points dial. ``addresses`` go into enrolment bundles."""

    addresses: Annotated[tuple[str, ...], Meta(min_length=1, max_length=limits.GRANT_ADDRESSES_MAX)]
    host: str = EVERYWHERE
    port: Port = 7601
    heartbeat_s: Annotated[int, Meta(ge=1, le=86_400)] = 300


class ApiTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[api]``: where operators' command lines connect; ``hosts`` stand in its certificate."""

    hosts: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    host: str = EVERYWHERE
    port: Port = 7600


class OriginTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[origin]``: the server's own seed; 0 bytes per second is unlimited, ``windows`` lower them.

    ``requests`` is how many blocks of 16 KiB a node may ask for ahead. Content that no signed release names
    any more is kept for ``keep_withdrawn_s``.
    """

    host: str = EVERYWHERE
    port: Port = 7602
    up_bytes_per_s: BytesPerSecond = 0
    windows: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    requests: Annotated[int, Meta(ge=4, le=2_000)] = REQUESTS
    keep_withdrawn_s: Seconds = 7 * 24 * 3600


class OnlineTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[online]``: the key that signs snapshot and timestamp, and how long these are valid.

    ``next_key`` is the one that will replace it: it signs from the publication on whose root names it.
    """

    key: Path
    passphrase_file: Path
    next_key: Path | None = None
    next_passphrase_file: Path | None = None
    timestamp_life_s: Seconds = 24 * 3600
    snapshot_life_s: Seconds = 7 * 24 * 3600


class CertificatesTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[certificates]``: how long a node's certificate is valid; it is renewed at half of it."""

    life_s: CertificateSeconds = 24 * 3600


class GroupRatesTable(RatesTable, frozen=True, kw_only=True):
    """``[[rates]]``: limits for the nodes of a group with its subgroups; the nearest ancestor's count."""

    group: str


class LogTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[log]``: standard error, for people or as JSON lines."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    json: bool = False


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    server: ServerTable
    link: LinkTable
    online: OnlineTable
    store: StoreTable = StoreTable()
    api: ApiTable = ApiTable()
    origin: OriginTable = OriginTable()
    stun: StunTable = StunTable()
    mirrors: MirrorSettings = MirrorSettings()
    directories: Directories = ()
    certificates: CertificatesTable = CertificatesTable()
    rates: tuple[GroupRatesTable, ...] = ()
    log: LogTable = LogTable()

    @property
    def store_url(self) -> str:
        """The database's URL."""
        return self.store.url or f"sqlite:///{self.server.data / 'fleet.db'}"

    @property
    def api_hosts(self) -> tuple[str, ...]:
        """The names and addresses in the API's certificate."""
        hosts = [parse_endpoint(address)[0] for address in self.link.addresses]
        return tuple(dict.fromkeys([*self.api.hosts, *hosts, "localhost", "127.0.0.1", "::1"]))

    def service_settings(self) -> ServiceSettings:
        """Return what the running service needs.

        Raises:
            UsageError: a group, an address or a window is not written as it must be.
        """
        for address in self.link.addresses:
            parse_endpoint(address)
        for window in self.origin.windows:
            if parse_window(window).site:
                raise UsageError(
                    f"[origin] has the window {window!r}", hint="leave site= out: there it is all WAN"
                )
        return ServiceSettings(
            plane=PlaneSettings(
                host=self.link.host,
                port=self.link.port,
                certificate_life_s=self.certificates.life_s,
                heartbeat_s=self.link.heartbeat_s,
                rates={parse_group(table.group): table.limits() for table in self.rates},
            ),
            origin=OriginSettings(
                host=self.origin.host,
                port=self.origin.port,
                up_bytes_per_s=self.origin.up_bytes_per_s,
                windows=self.origin.windows,
                requests=self.origin.requests,
            ),
            stun=self.stun.settings(listen=self.link.host),
            timestamp_life_s=self.online.timestamp_life_s,
            snapshot_life_s=self.online.snapshot_life_s,
            withdrawn_keep_s=self.origin.keep_withdrawn_s,
            mirrors=self.mirrors,
            directories=self.directories,
        )
