"""The configuration that agent and seed share: one TOML table per struct here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.core.listening import EVERYWHERE
from p2pdist.core.rates import RatesTable
from p2pdist.core.services import ServicePolicy
from p2pdist.errors import UsageError
from p2pdist.node.directorysettings import Directories
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.node.stuntable import StunTable
from p2pdist.swarm.tuning import REQUESTS
from p2pdist.wire.wakes import WAKE_PORT

Port = Annotated[int, Meta(ge=0, le=65535)]
TcpPort = Annotated[int, Meta(ge=1, le=65535)]
Requests = Annotated[int, Meta(ge=4, le=2_000)]
Host = Annotated[str, Meta(min_length=1, max_length=255)]


class NodeTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[node]``: where the node keeps everything, and what people call it (the host's name if empty)."""

    data: Path = Path("/var/lib/p2pdist")
    name: Annotated[str, Meta(max_length=255)] = ""


class LinkTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[link]``: the address to dial from; empty is the system's choice."""

    local_host: Annotated[str, Meta(max_length=255)] = ""


class SwarmTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[swarm]``: where other nodes reach this one for content; port 0 takes any free one, at one address.

    Without a port a distribution point has 7602, which firewalls can name, and a device one of its own
    (:func:`p2pdist.swarm.tuning.device_port`).

    ``requests`` is how many blocks of 16 KiB another node may ask for ahead; see
    :data:`p2pdist.swarm.tuning.REQUESTS`.
    """

    host: Host = EVERYWHERE
    port: Port | None = None
    requests: Requests = REQUESTS


class InstallTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[install]``: the root below which software is installed."""

    root: Path = Path("/")


class LogTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[log]``: how much is logged, and whether as JSON lines."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    json: bool = False


class NodeRatesTable(RatesTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[rates]``: this node's own limits. Those of its group apply as well; the lowest count."""


class SessionsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sessions]``: what operators may do on this device; see
    :class:`~p2pdist.core.services.ServicePolicy`.

    ``tunnel_ports`` are TCP ports of the device itself. ``udp_ports`` are those of direct and punched paths,
    ``"FIRST-LAST"``, for firewalls that have to name them; empty is the system's choice.
    """

    tunnel_ports: Annotated[list[TcpPort], Meta(max_length=256)] = msgspec.field(default_factory=list)
    logs: bool = True
    diagnosis: bool = True
    udp_ports: Annotated[str, Meta(max_length=255)] = ""

    def ports(self) -> Sequence[int]:
        """Return the UDP ports of direct and punched paths; 0 alone is the system's choice.

        Raises:
            UsageError: there are no such ports, or too many.
        """
        if not self.udp_ports:
            return (0,)
        named = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", self.udp_ports)
        first, last = map(int, named.groups()) if named is not None else (0, 0)
        if not 0 < first <= last < 65_536 or last - first >= limits.PUNCH_PORTS_MAX:
            raise UsageError(
                f"[sessions] udp_ports is {self.udp_ports}",
                hint=f"write the first and the last, such as 7610-7619, at most {limits.PUNCH_PORTS_MAX}",
            )
        return range(first, last + 1)

    def policy(self) -> ServicePolicy:
        """Return what the table says."""
        return ServicePolicy(tunnel_ports=tuple(self.tunnel_ports), logs=self.logs, diagnosis=self.diagnosis)


class RestingTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[resting]``: whether this device keeps no link while it has nothing to do.

    It rests after ``after_s`` seconds without anything to do, and looks by itself every ``look_every_s``.
    Until then it listens for wakes at ``host`` and ``port`` over UDP. With ``sleep``, a command and its
    arguments, its machine may be woken by Wake-on-LAN; the command sends it back to sleep after the task for
    which it was woken.
    """

    enabled: bool = False
    after_s: Annotated[float, Meta(ge=0.5, le=86_400)] = 60.0
    look_every_s: Annotated[float, Meta(ge=limits.REST_LOOK_S_MIN, le=7 * 86_400)] = 3_600.0
    host: Host = EVERYWHERE
    port: Port = WAKE_PORT
    sleep: Annotated[list[Annotated[str, Meta(min_length=1, max_length=4_096)]], Meta(max_length=64)] = (
        msgspec.field(default_factory=list)
    )


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent's configuration file. Everything has a default."""

    node: NodeTable = NodeTable()
    link: LinkTable = LinkTable()
    swarm: SwarmTable = SwarmTable()
    install: InstallTable = InstallTable()
    rates: NodeRatesTable = NodeRatesTable()
    sessions: SessionsTable = SessionsTable()
    resting: RestingTable = RestingTable()
    log: LogTable = LogTable()


class PointTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[point]``: where devices reach this distribution point, and how much disk it may use for them.

    ``quota_bytes`` 0 is unlimited; a quota in the signed grant applies as well, the lower counts. A point
    that is ``dialled`` dials nobody, from its first start on: those above dial it, as its grant says, too.
    """

    host: Host = EVERYWHERE
    port: Port = 7601
    quota_bytes: Annotated[int, Meta(ge=0)] = 0
    dialled: bool = False


class SeedConfig(AgentConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The seed node's configuration file: an agent's, and what only a distribution point needs."""

    point: PointTable = PointTable()
    mirrors: MirrorSettings = MirrorSettings()
    directories: Directories = ()
    stun: StunTable = StunTable()
