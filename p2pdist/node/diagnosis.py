"""What a node thinks of itself, for operators: plain values that become JSON. No secrets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import p2pdist

if TYPE_CHECKING:
    from p2pdist.node.member import Member


def diagnose(member: Member) -> Mapping[str, Any]:
    """Return the node's own view: who it is, its link, its metadata and certificate, its content."""
    catalog, desired, upstream = member.metadata.catalog, member.desired, member.uplink.upstream
    link = member.uplink.link
    return {
        "node": member.node,
        "program": f"p2pdist {p2pdist.__version__}",
        "role": member.settings.role,
        "group": member.group,
        "clock": datetime.now(UTC).isoformat(timespec="seconds"),
        "link": None
        if upstream is None or link is None
        else {
            "to": upstream.node,
            "kind": upstream.kind,
            "address": link.remote_host,
            "from": link.local_host,
        },
        "network": [behaviour.describe() for behaviour in member.nat.behaviours],
        "sessions": member.reception.describe(),
        "certificate_until": member.home.certificate.not_after.isoformat(),
        "swarms": list(member.home.certificate.swarms),
        "metadata": dict(member.metadata.versions),
        "metadata_until": None
        if catalog is None
        else datetime.fromtimestamp(catalog.expires, UTC).isoformat(),
        "desired_revision": desired.revision if desired is not None else None,
        "deployments": [d.target for d in desired.deployments] if desired is not None else [],
        "swarm_port": member.swarm.port,
        "content": {
            release.target: _content(member, release.info_hash)
            for release in member.content.wanted().values()
        },
    }


def _content(member: Member, info_hash: Any) -> Mapping[str, Any] | str:
    found = member.content.statistics(info_hash)
    if found is None:
        return "not joined yet"
    return {
        "pieces": f"{found.have} of {found.pieces}",
        "peers": found.peers,
        "bytes_per_s_down": found.rate_down,
        "bytes_per_s_up": found.rate_up,
        "refused_bytes": found.refused_bytes,
    }
