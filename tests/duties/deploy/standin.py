"""An agent that takes no time: a script with the commands of the real one that deployment uses."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from p2pdist.duties.deploy.protocol import Package
from p2pdist.ids import FleetName, GroupPath, NodeId
from p2pdist.install.platform import detect_platform
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey

BUNDLE = b'{"fleet": "acme"}\n'
_NOW = datetime.now(UTC)

_SCRIPT = """\
#!/bin/sh
echo "$*" >>/var/log/agent-calls
case "$1" in
--version) echo 0.0 ;;
enrol)
    read -r token
    case "$token" in refused*) echo "error: the token is not known" >&2; exit 4 ;; esac
    printf %s "$token" | sha256sum >>/var/log/agent-tokens
    cat >/var/lib/p2pdist/enrolment.json
    cat >/var/lib/p2pdist/certificate.pem <<'PEM'
{certificate}PEM
    echo "enrolled" ;;
run) exec sleep 3600 ;;
esac
exit 0
"""


def make_agent(
    directory: Path, *, length: int = 0, note: str = "", certificate: bytes = b""
) -> tuple[Package, NodeId]:
    """Write the file, at least so long; return what is said of it, and the node that it makes.

    That has a certificate of a fleet of its own, unless one is given.
    """
    key = IdentityKey.generate()
    authority = FleetAuthority.create(FleetName("acme"), _NOW)
    own = authority.issue(key.public, group=GroupPath("/x"), swarms=(), now=_NOW, life_s=3_600)
    certificate = certificate or own
    data = (_SCRIPT.format(certificate=certificate.decode()) + f"# {note}\n").encode()
    data += b"#" * max(0, length - len(data))
    path = directory / f"agent{note}"
    path.write_bytes(data)
    package = Package(
        path=str(path), length=len(data), sha256=hashlib.sha256(data).hexdigest(), platform=detect_platform()
    )
    return package, key.node
