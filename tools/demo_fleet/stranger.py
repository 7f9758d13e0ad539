"""A stranger: stock libtorrent with a certificate of its own authority, that wants in.

It knows everything that is no secret (the torrent, the name of the swarm, every node's address) and
nothing that is. Each node must turn it away in the TLS handshake: it gets not one byte.

Run as a program, on a machine of the stranger's; see :func:`main`. It prints a :class:`Visit` as JSON.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import libtorrent
import msgspec
import trio

from p2pdist.ids import FleetName, GroupPath, SwarmName
from p2pdist.swarm.dh import FFDHE2048_PEM
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey

_POLL_S = 0.2


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: bytes received, and the addresses that ended the handshake with a TLS alert."""

    received_bytes: int
    turned_away: frozenset[str]


def main() -> None:
    """Visit as the arguments say: HOST SWARM TORRENT FLEET-CA SECONDS ADDRESS:PORT..."""
    host, swarm, torrent, fleet_ca, patience_s, *targets = sys.argv[1:]

    async def visiting() -> Visit:
        return await visit(
            Path(torrent).read_bytes(),
            SwarmName(swarm),
            [(address, int(port)) for address, _, port in (each.rpartition(":") for each in targets)],
            host=host,
            fleet_ca=Path(fleet_ca).read_bytes(),
            patience_s=float(patience_s),
        )

    print(msgspec.json.encode(trio.run(visiting)).decode())


async def visit(
    torrent: bytes,
    swarm: SwarmName,
    targets: Sequence[tuple[str, int]],
    *,
    host: str,
    fleet_ca: bytes,
    patience_s: float,
) -> Visit:
    """Dial each of *targets* from *host* with a certificate of a foreign authority that names *swarm*.

    The stranger trusts the fleet (it has seen an enrolment bundle), so that it is the fleet's nodes that
    must refuse.
    """
    authority = FleetAuthority.create(FleetName("stranger"), datetime.now(UTC))
    key = IdentityKey.generate()
    certificate = authority.issue(
        key.public, group=GroupPath("/"), swarms=[swarm], life_s=3600, now=datetime.now(UTC)
    )
    with tempfile.TemporaryDirectory(prefix="p2pdist-stranger-") as directory:
        session = libtorrent.session(
            {
                "listen_interfaces": f"{host}:0s",
                "outgoing_interfaces": host,
                "enable_outgoing_utp": False,
                "enable_dht": False,
                "enable_lsd": False,
                "enable_upnp": False,
                "enable_natpmp": False,
                "allow_multiple_connections_per_ip": True,
                "alert_mask": int(
                    libtorrent.alert.category_t.error_notification
                    | libtorrent.alert.category_t.peer_notification
                    | libtorrent.alert.category_t.connect_notification
                    | libtorrent.alert.category_t.status_notification
                ),
            }
        )
        parameters = libtorrent.add_torrent_params()
        parameters.ti = libtorrent.torrent_info(torrent)
        parameters.save_path = directory
        parameters.root_certificate = fleet_ca.decode()
        parameters.flags &= ~libtorrent.torrent_flags.auto_managed
        parameters.flags &= ~libtorrent.torrent_flags.paused
        handle = session.add_torrent(parameters)
        handle.set_ssl_certificate_buffer(certificate.decode(), key.private_pem().decode(), FFDHE2048_PEM)
        found = await _dial(session, handle, targets, patience_s)
        received = handle.status().total_download
        if any(path.is_file() and path.stat().st_blocks for path in Path(directory).rglob("*")):
            received = max(received, 1)
        session.pause()
        del handle, session
    return Visit(received_bytes=received, turned_away=found)


async def _dial(
    session: libtorrent.session,
    handle: libtorrent.torrent_handle,
    targets: Sequence[tuple[str, int]],
    patience_s: float,
) -> frozenset[str]:
    found: set[str] = set()
    wanted = {host for host, _ in targets}
    with trio.move_on_after(patience_s):
        for target in targets:
            handle.connect_peer(target)
        while not wanted <= found:
            for alert in session.pop_alerts():
                if isinstance(alert, libtorrent.peer_error_alert | libtorrent.peer_disconnected_alert):
                    if alert.error.category().name() == "asio.ssl":
                        found.add(str(alert.endpoint[0]))
                elif isinstance(alert, libtorrent.torrent_error_alert):
                    raise RuntimeError(f"the stranger could not begin: {alert.message()}")
            await trio.sleep(_POLL_S)
    return frozenset(found & wanted)


if __name__ == "__main__":
    main()
