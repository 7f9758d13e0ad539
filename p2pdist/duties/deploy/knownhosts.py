"""Files like ``known_hosts`` of OpenSSH (sshd(8)), hashed names included: which key a host must show."""

from __future__ import annotations

from ipaddress import ip_address

import asyncssh

from p2pdist.errors import UsageError

_ORDER = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ssh-rsa")


def known_key(known_hosts: str, host: str, address: str, port: int) -> str:
    """Return the key of a host as OpenSSH writes it; empty where the file names none that can be pinned.

    Args:
        known_hosts: What stands in the file.
        host: The name by which the operator calls it.
        address: Its IP address, or the name by which it is reached.
        port: Its TCP port.

    Raises:
        UsageError: that is no such file, or it says that the host's key was revoked.
    """
    try:
        file = asyncssh.import_known_hosts(known_hosts)
        keys: list[asyncssh.SSHKey] = []
        revoked: list[asyncssh.SSHKey] = []
        for name in dict.fromkeys([host, address]):
            more, _, bad, *_ = asyncssh.match_known_hosts(file, name, _ip(address), port)
            keys += more
            revoked += bad
    except (ValueError, asyncssh.Error):
        raise UsageError(
            "that is no file of known hosts", hint="give one such as ~/.ssh/known_hosts"
        ) from None
    good = [key for key in keys if key not in revoked]
    if keys and not good:
        raise UsageError(f"the key of {host} was revoked in the file of known hosts")
    by_kind = {key.get_algorithm(): key for key in good}
    for kind in _ORDER:
        if kind in by_kind:
            return " ".join(by_kind[kind].export_public_key("openssh").decode("ascii").split()[:2])
    return ""


def _ip(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        return ""
