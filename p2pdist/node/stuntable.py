"""The table ``[stun]`` in the configuration of a distribution point and of the admin server.

It stands apart from what it configures: an agent, which reads the same files, needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from p2pdist.errors import UsageError
from p2pdist.wire.stun import endpoint_of

if TYPE_CHECKING:
    from p2pdist.net.stundesk import StunSettings

Port = Annotated[int, Meta(ge=0, le=65535)]
Address = Annotated[str, Meta(max_length=128)]


class StunTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[stun]``: where a gateway, or the admin server, tells others over UDP how NATs show them.

    ``addresses`` are this machine's; none for those at which it accepts links. Behind a NAT that forwards
    both ports, with their numbers unchanged, write ``"INSIDE = OUTSIDE"``.
    """

    enabled: bool = True
    port: Port = 3478
    other_port: Port = 3479
    addresses: Annotated[list[Address], Meta(max_length=16)] = msgspec.field(default_factory=list)

    def settings(self, *, listen: str) -> StunSettings:
        """Return what the table says; *listen* is where the program accepts links.

        Raises:
            UsageError: an address is none, or the ports are one.
        """
        from p2pdist.net.stun import StunAddress
        from p2pdist.net.stundesk import StunSettings

        if self.port == self.other_port != 0:
            raise UsageError(
                f"[stun] has {self.port} for both ports", hint="STUN needs two: 3478 and 3479 as a rule"
            )
        pairs = [tuple(part.strip() for part in text.partition("=")) for text in self.addresses]
        for host in (host for bind, _, outside in pairs for host in (bind, outside or bind)):
            if endpoint_of(host, 0).ip.is_unspecified:
                raise UsageError(f"[stun] has {host}", hint="name each address: not the one that means all")
        return StunSettings(
            ports=(self.port, self.other_port),
            addresses=tuple(StunAddress(bind=bind, outside=outside) for bind, _, outside in pairs),
            listen=listen,
            enabled=self.enabled,
        )
