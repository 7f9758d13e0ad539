"""Every libtorrent setting that differs from its default, and why.

All of them go into the session's constructor: settings applied straight afterwards race its start.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING, Final

import libtorrent as lt
import msgspec

from p2pdist import limits
from p2pdist.core.listening import listening_hosts
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId
from p2pdist.swarm.ledger import peer_id_of
from p2pdist.wire.frames import Role

if TYPE_CHECKING:
    from libtorrent import settings_pack


REQUESTS: Final = 32
"""Blocks of 16 KiB that one node may have under way from another: 512 KiB, enough for 100 Mbit/s at a round
trip of 40 ms. More make a slow uplink serve its receivers less evenly, and the last of them finish later."""


UTP_CONNECT_MS: Final = 800
"""How long an answer to uTP's first packet may take; after that the next one is sent. A geostationary
satellite's round trip is 600."""


SITE_SLOTS: Final = 3
"""Devices that a point serves at a time. Who has caught up makes room for the next, so that all of them get
everything also where devices cannot reach one another."""


POINT_PORT: Final = 7602

_DEVICE_PORTS: Final = range(20_480, 28_672)


def device_port(node: NodeId) -> int:
    """Return the port of a device's swarm, always the same, from 20480 to 28671.

    libtorrent takes two peers with one address and one listening port for the same peer, and closes the
    second connection: devices behind one NAT need ports that differ.
    """
    digest = hashlib.blake2b(node.encode(), digest_size=8).digest()
    return _DEVICE_PORTS[int.from_bytes(digest, "big") % len(_DEVICE_PORTS)]


class SwarmSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one node's swarm needs to know of the node.

    ``host`` is the address to listen on and to dial from (``*`` for all, ``0.0.0.0`` or ``::`` for those of
    one family); ``port`` 0 takes any free one, but not in both families. The PEM texts are the fleet CA's
    certificate, this node's certificate and its key. Without ``dials`` there are only connections that others
    make.
    """

    role: Role
    node: NodeId
    host: str
    port: int
    ca_pem: bytes
    certificate_pem: bytes
    key_pem: bytes
    requests: int = REQUESTS
    dials: bool = True


ALERTS: Final = (
    lt.alert_category.error
    | lt.alert_category.status
    | lt.alert_category.storage
    | lt.alert_category.peer
    | lt.alert_category.connect
    | lt.alert_category.block_progress
    | lt.alert_category.piece_progress
    | lt.alert_category.upload
)


_CALLS: Final[settings_pack] = {
    # TLS over uTP does half of what TLS over TCP does on the same core: only calls are made over it, see
    # Calls.
    "enable_outgoing_utp": False,
    "enable_incoming_utp": True,
    "utp_connect_timeout": UTP_CONNECT_MS,
    # Trackers are only for their datagrams: all of them at once, and none is told when it is over.
    "announce_to_all_trackers": True,
    "announce_to_all_tiers": True,
    "apply_ip_filter_to_trackers": False,
    "stop_tracker_timeout": 0,
}


def session_settings(settings: SwarmSettings) -> settings_pack:
    """Return the settings of the node's session.

    Raises:
        UsageError: ``host`` is not an IP address, or ``port`` not a port.
    """
    listened, dialled_from = _interfaces(settings)
    return {
        # Identity and reach: SSL only, found by nobody.
        "listen_interfaces": listened,
        "outgoing_interfaces": dialled_from,
        "peer_fingerprint": peer_id_of(settings.role, settings.node).decode(),
        "user_agent": "p2pdist",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "listen_system_port_fallback": False,  # a port that was asked for is the one, or an error
        "max_retry_port_bind": 0,
        **_CALLS,
        **dialling_settings(settings.dials),
        "out_enc_policy": 2,  # no obfuscation below TLS
        "in_enc_policy": 2,
        # Connections: several nodes behind one NAT address, and quick failover.
        "allow_multiple_connections_per_ip": True,
        "connections_limit": 4 * limits.PEERS_PER_TORRENT_MAX,
        "tick_interval": 100,
        "smooth_connects": False,
        "torrent_connect_boost": limits.PEERS_PER_TORRENT_MAX,
        "peer_connect_timeout": 6,
        "min_reconnect_time": 3,
        "max_failcount": 20,
        "listen_queue_size": 64,
        "peer_turnover_interval": 3600,  # peers are chosen by the control plane: keep them
        "peer_turnover": 0,
        # Nobody hangs up on a node that is complete: see Carried.disconnect_idle.
        "close_redundant_connections": False,
        # Pieces are passed on as they come, so each is wanted whole and soon: no long run of pieces is
        # reserved at one source, and few blocks: what waits in the queue of a slow source cannot be had
        # from an idle one. Equal queues also make equal shares of a source's uplink.
        "whole_pieces_threshold": 0,
        "initial_picker_threshold": 0,
        "max_allowed_in_request_queue": settings.requests,  # what others may ask of us: they are told
        "max_out_request_queue": settings.requests,
        # Choking: whoever was let in is served, but a point serves few devices of its site at a time. They
        # pass the piece on, and what the point sends over the WAN is not lost in the queue of its own port.
        # Over the WAN everybody is served: see LinkClasses.
        "unchoke_slots_limit": SITE_SLOTS if settings.role == "point" else -1,
        "allowed_fast_set_size": 0,
        "unchoke_interval": 5,
        "optimistic_unchoke_interval": 10,
        "mixed_mode_algorithm": 0,
        "rate_limit_ip_overhead": True,
        # Memory: a small node must stay small.
        "aio_threads": 2,
        "hashing_threads": 1,
        "file_pool_size": 16,
        "checking_mem_usage": 64,
        "max_queued_disk_bytes": 8 * limits.MIB,
        "max_peer_recv_buffer_size": limits.MIB,
        "send_buffer_watermark": limits.MIB,
        # Alerts: each block is one, and none may be lost.
        "alert_mask": ALERTS,
        "alert_queue_size": 20_000,
    }


def dialling_settings(dials: bool) -> settings_pack:
    """Return the settings that let a session dial, or not even try: it learns of ports by itself."""
    return {"enable_outgoing_tcp": dials, "connection_speed": 100 if dials else 0}


def _interfaces(settings: SwarmSettings) -> tuple[str, str]:
    """Return where to listen and what to dial from, in libtorrent's words."""
    addresses = [parse_host(host) for host in listening_hosts(settings.host)]
    if not 0 <= settings.port <= 65535:
        raise UsageError(f"{settings.port} is not a port", hint="use 0 to 65535")
    if len(addresses) > 1 and not settings.port:
        raise UsageError(
            "the swarm needs a port for both families", hint="name one, or one address to listen on"
        )
    shown = [f"[{address}]" if address.version == 6 else str(address) for address in addresses]
    dialled_from = "" if addresses[0].is_unspecified else str(addresses[0])
    return ",".join(f"{host}:{settings.port}s" for host in shown), dialled_from


def parse_host(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse an IP address. Raises :class:`~p2pdist.errors.UsageError`."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        raise UsageError(f"{host!r} is not an IP address", hint="the swarm takes no names") from None
