"""The work of following a vendor's repository, and what is found in it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.errors import PeerError
from p2pdist.wire.frames import Count
from p2pdist.wire.message import UnixSeconds

_Url = Annotated[
    str, Meta(min_length=8, max_length=limits.FOLLOW_URL_CHARS_MAX, pattern=r"^https?://[!-~]+\Z")
]
_Word = Annotated[str, Meta(max_length=64, pattern=r"^[a-z0-9][a-zA-Z0-9._+-]*\Z")]
_Words = Annotated[list[_Word], Meta(max_length=limits.FOLLOW_INDEXES_MAX)]
_Path = Annotated[str, Meta(max_length=128, pattern=r"^[a-zA-Z0-9._+/-]+\Z")]
_Glob = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9.+*?\[\]!-]+\Z")]
_Pattern = Annotated[str, Meta(min_length=3, max_length=128, pattern=r"^[a-zA-Z0-9._+~@=*{}:-]+\Z")]
_FileName = Annotated[str, Meta(max_length=255, pattern=r"^([a-zA-Z0-9][a-zA-Z0-9._+~@=-]*)?\Z")]
_Name = Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX, pattern=r"^[!-~]+\Z")]


class AptSource(msgspec.Struct, frozen=True, kw_only=True, tag_field="source", tag="apt"):
    """An ``apt`` repository. A suite that ends in ``/`` is a flat one, without components."""

    url: _Url
    suite: _Path
    components: _Words = msgspec.field(default_factory=list)
    architectures: Annotated[_Words, Meta(min_length=1)]
    packages: Annotated[list[_Glob], Meta(min_length=1, max_length=limits.FOLLOW_GLOBS_MAX)]
    """Which packages are wanted."""


class DirectorySource(msgspec.Struct, frozen=True, kw_only=True, tag_field="source", tag="directory"):
    """A directory of a web server: its page of links, or its file ``sums``, as ``sha256sum`` writes it.

    ``pattern`` is a file's name with ``{version}`` in it, which stands for digits and dots, or with
    ``{version:any}``, which stands for letters and ``+~-_`` as well; ``*`` stands for anything.
    ``signature`` is the file with the detached signature over ``sums``; without it, and with keys, ``sums``
    itself has to be signed in clear text.
    """

    url: _Url
    pattern: _Pattern
    product: _Name
    sums: _FileName = ""
    signature: _FileName = ""


AnySource: TypeAlias = AptSource | DirectorySource


class Follow(msgspec.Struct, frozen=True, kw_only=True, tag_field="work", tag="follow"):
    """Find out which versions a vendor offers.

    ``keys`` are the OpenPGP certificates that may sign its indexes.
    ``seen`` is what the admin server adds: the moment of the newest signed index that came of this task.
    """

    source: AnySource
    keys: Annotated[
        list[Annotated[bytes, Meta(min_length=1, max_length=limits.FOLLOW_KEY_BYTES_MAX)]],
        Meta(max_length=limits.FOLLOW_KEYS_MAX),
    ] = msgspec.field(default_factory=list)
    seen: UnixSeconds = 0


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """The newest version of a product for one architecture, as a vendor's index has it."""

    product: _Name
    version: Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX, pattern=r"^[!-~]+\Z")]
    architecture: Annotated[str, Meta(max_length=32, pattern=r"^[a-z0-9-]*\Z")] = ""
    """As the vendor calls it; empty where it does not say."""
    url: _Url
    file: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._+~@=:%-]*\Z")]
    size_bytes: Count = 0
    """0: the index does not say."""
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    """Empty: the index does not say."""
    signed: bool = False
    """Whether the index that says so is signed by one of the task's keys."""


def checked_offer(**fields: object) -> Offer:
    """Make an offer of what an index says. Raises PeerError when it cannot be one."""
    try:
        return msgspec.convert(fields, Offer)
    except msgspec.ValidationError as error:
        raise PeerError(f"an index offers what cannot be a release ({error})") from None


ProposalState = Literal[
    "new",
    "superseded",  # the vendor offers a newer one
    "gone",  # the vendor does not offer it any more
    "dropped",  # somebody does not want it
    "published",  # it is a signed release of this fleet
]
