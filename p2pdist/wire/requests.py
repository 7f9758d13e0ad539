"""Requests: a question with one answer, each on a stream of its own of a link.

The path says what is asked, the body is one msgpack structure, the answer another. An answer with
another status than 200 carries a :class:`Problem`.

=================  ======================  =====================  ==============================
path               body                    answer                 who may ask
=================  ======================  =====================  ==============================
``/enrol``         :class:`EnrolRequest`   :class:`Enrolled`      anybody with a token
``/renew``         :class:`RenewRequest`   :class:`Enrolled`      a known node whose certificate ran out
``/bundle``        :class:`BundleRequest`  :class:`Bundle`        a node with a certificate
``/torrent``       :class:`TorrentRequest` :class:`Torrent`       a node with a certificate
``/carry``         :class:`CarryOffer`     :class:`Accepted`      a neighbour above, which has dialled
``/lapsed``        :class:`Lapsed`         :class:`RenewRequest`  the same
``/certificate``   :class:`Enrolled`       :class:`Accepted`      the same
``/control``       frames, both ways, for as long as the link lives  a node with a certificate
=================  ======================  =====================  ==============================
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import InfoHashText, NodeIdText, RoleName, Text

FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.json\Z", max_length=160)]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was not answered. ``family`` maps back to the error families."""

    family: Literal["usage", "peer", "trust", "unavailable"]
    what: Text
    hint: Text = ""


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks to become a member of the fleet.

    ``sealed`` is an :class:`EnrolSecret` in a PyNaCl sealed box for the admin server's identity key:
    a distribution point that passes the request on never sees the token.
    """

    sealed: Annotated[bytes, Meta(max_length=limits.ENROL_BYTES_MAX)]


class EnrolSecret(msgspec.Struct, frozen=True, kw_only=True):
    """What only the admin server reads of an enrolment.

    ``request`` is a PKCS #10 request in PEM, signed with the node's identity key, which proves that
    the node holds it.
    """

    token: Annotated[str, Meta(min_length=1, max_length=200)]
    request: Annotated[bytes, Meta(max_length=16 * limits.KIB)]
    name: Annotated[str, Meta(max_length=255)]
    platform: Annotated[str, Meta(max_length=64)]
    machine: Annotated[str, Meta(max_length=128)]
    """A hash of the machine's own id, by which a clone is recognised."""


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for a certificate after the last one has expired, when no link with one can be made.

    The envelope is sealed by the node's identity key and holds a
    :class:`~p2pdist.wire.messages.RenewalRequest`, so it needs no token and no certificate.
    """

    envelope: Envelope


class Enrolled(msgspec.Struct, frozen=True, kw_only=True):
    """The node's certificate, and the group that it stands in."""

    certificate: Annotated[bytes, Meta(max_length=limits.ENROL_BYTES_MAX)]
    node: NodeIdText
    group: Annotated[str, Meta(pattern=r"^/", max_length=limits.GROUP_PATH_CHARS_MAX)]


class BundleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the metadata that the asker lacks.

    ``have`` maps a role to the version that the asker holds. ``relay`` asks a distribution point for
    what the admin server itself has now, unverified by the point: the asker verifies anyway.
    """

    have: Annotated[dict[RoleName, Annotated[int, Meta(ge=1)]], Meta(max_length=limits.BUNDLE_FILES_MAX)]
    relay: bool = False


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata files by name, as TUF names them: ``3.root.json``, ``timestamp.json``, ``7.targets.json``.

    Nothing in it is trusted until the TUF verifier has run over it.
    """

    files: Annotated[dict[FileName, bytes], Meta(max_length=limits.BUNDLE_FILES_MAX)]


class TorrentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asks for the torrent of an artifact: its info dictionary and piece layers (BEP 52)."""

    info_hash: InfoHashText


class Torrent(msgspec.Struct, frozen=True, kw_only=True):
    """A torrent file, bencoded. The asker checks it against the info-hash in the signed target."""

    torrent: Annotated[bytes, Meta(max_length=limits.TORRENT_BYTES_MAX)]


class CarryOffer(msgspec.Struct, frozen=True, kw_only=True):
    """Downwards, to a point that is dialled: this link is here to carry you. It may have a better one."""


class Lapsed(msgspec.Struct, frozen=True, kw_only=True):
    """Downwards, to a point that is dialled: your certificate has run out. Ask for another one."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """It was taken, and there is nothing more to say."""
