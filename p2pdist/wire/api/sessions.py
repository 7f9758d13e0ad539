"""Sessions of operators with devices."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.api.base import Answer, Request
from p2pdist.wire.frames import NodeIdText
from p2pdist.wire.services import Service


class NewSession(Request, frozen=True, kw_only=True):
    """Announce a session to a device.

    ``authority`` is the certificate (PEM) of an authority that was made for this session; in the session's
    TLS the initiator shows a certificate of it that names ``initiator``. ``service`` is written into the
    audit log and told to the device, which takes no other one in this session.
    """

    authority: Annotated[str, Meta(max_length=limits.ENROL_BYTES_MAX)]
    initiator: NodeIdText
    service: Service


class Carrier(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution point that passes a session on."""

    node: str
    name: str


class SessionInfo(Answer, frozen=True, kw_only=True):
    """The device expects the session until ``expires``; a path to it is at ``/sessions/{session}/path``.

    That path goes through ``carriers``, the nearest to the device first; none if it is linked to the server.
    """

    session: str
    node: str
    name: str
    expires: int
    carriers: tuple[Carrier, ...] = ()
