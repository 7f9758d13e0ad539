"""The work of initial deployment: which machines get the agent, how to log in there, and the secrets."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from p2pdist import limits

Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\s\x00-\x1f\x7f]+\Z")]
Address = Annotated[str, Meta(min_length=3, max_length=300, pattern=r"^[^\s/]+:[0-9]{1,5}\Z")]
Secret = Annotated[str, Meta(max_length=limits.SECRETS_BYTES_MAX)]


class InstallHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One machine. ``id`` is what the operator calls it, ``group`` where its device will stand.

    ``key`` is the host key that it must show, as OpenSSH writes it, or its fingerprint (``SHA256:…``).
    """

    id: Name
    address: Name
    port: Annotated[int, Meta(ge=1, le=65_535)] = 22
    key: Annotated[str, Meta(max_length=limits.KIB)] = ""
    group: Annotated[str, Meta(pattern=r"^/", max_length=limits.GROUP_PATH_CHARS_MAX)] = "/"


class Install(msgspec.Struct, frozen=True, kw_only=True, tag_field="work", tag="install"):
    """Log in to machines and make them managed devices.

    ``target`` is a signed release: the agent as one file. ``addresses`` are where the new devices find the
    fleet; empty: where the node that does this is found, or finds it. Whose key is not named is believed
    with ``first_use``, and else left. ``ssh_agent`` uses the SSH agent of the node's own environment.
    """

    hosts: Annotated[list[InstallHost], Meta(min_length=1, max_length=limits.INSTALL_HOSTS_MAX)]
    target: Annotated[str, Meta(min_length=1, max_length=limits.TARGET_PATH_CHARS_MAX)]
    addresses: Annotated[list[Address], Meta(max_length=limits.GRANT_ADDRESSES_MAX)] = msgspec.field(
        default_factory=list
    )
    config: Annotated[str, Meta(max_length=limits.INSTALL_CONFIG_BYTES_MAX)] = ""
    """The agents' configuration file; one that is there already is left alone."""
    user: Name = "root"
    sudo: bool = False
    ssh_agent: bool = False
    first_use: bool = False
    parallel: Annotated[int, Meta(ge=1, le=limits.INSTALL_PARALLEL_MAX)] = 8
    dry_run: bool = False


class InstallSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to log in; what is empty is not used.

    ``key`` is a private key as OpenSSH or PEM writes it, ``passphrase`` what opens it. ``sudo_password`` is
    not needed where ``sudo`` asks for none.
    """

    password: Secret = ""
    key: Secret = ""
    passphrase: Secret = ""
    sudo_password: Secret = ""

    def __repr__(self) -> str:
        """Return nothing that is secret, for tracebacks and logs."""
        return "InstallSecrets(…)"
