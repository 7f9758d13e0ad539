"""What verified metadata says, as types that the rest of the system decides with.

A :class:`Release` is one TUF target of a channel's role: its length and SHA-256 stand in TUF's own
fields, everything else in ``custom``. A :class:`SeedGrant` is one target of the role ``points``.
Instances are only made from metadata that the verifier has accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.ids import ChannelName, GroupPath, InfoHash, NodeId, ProductName, TargetPath

Duty = Literal["seed", "gateway", "discovery", "deploy", "push"]

_Argument = Annotated[str, Meta(max_length=4_096)]
_Arguments = Annotated[list[_Argument], Meta(max_length=256)]
_Seconds = Annotated[int, Meta(ge=1, le=limits.COMMAND_TIMEOUT_S_MAX)]
_RelativePath = Annotated[str, Meta(min_length=1, max_length=1_024, pattern=r"^[^/\0][^\0]*$")]
_AbsolutePath = Annotated[str, Meta(min_length=2, max_length=1_024, pattern=r"^/[^\0]*$")]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """How an artifact is installed. Paths are on the device, below its install root."""


class TreeRecipe(Recipe, frozen=True, kw_only=True, tag="tree"):
    """A ``.tar.zst`` of a directory tree, kept side by side with other versions, switched atomically.

    ``health_check`` runs in the new version after the switch; if it fails or does not finish, the
    version before becomes current again. ``keep`` is how many older versions stay on disk.
    """

    unpacked_bytes: Annotated[int, Meta(ge=0, le=limits.TREE_BYTES_MAX)]
    entries: Annotated[int, Meta(ge=0, le=limits.TREE_ENTRIES_MAX)]
    health_check: _Arguments = msgspec.field(default_factory=list)
    timeout_s: _Seconds = 60
    keep: Annotated[int, Meta(ge=0, le=20)] = 1


class DebRecipe(Recipe, frozen=True, kw_only=True, tag="deb"):
    """A Debian package, installed by dpkg."""

    package: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9+.-]+\Z", max_length=128)]
    version: Annotated[str, Meta(min_length=1, max_length=128)]
    architecture: Annotated[str, Meta(pattern=r"^[a-z0-9-]+\Z", max_length=32)]
    timeout_s: _Seconds = 900


class CommandRecipe(Recipe, frozen=True, kw_only=True, tag="command"):
    """The artifact is run, or handed to a program, with these arguments.

    ``{artifact}`` in an argument stands for the artifact's path. No shell is involved. ``check``, if
    given, exits 0 when the release is already installed: it makes the command safe to resume.
    """

    arguments: Annotated[list[_Argument], Meta(min_length=1, max_length=256)]
    expected_exit_codes: Annotated[list[Annotated[int, Meta(ge=0, le=255)]], Meta(min_length=1)] = (
        msgspec.field(default_factory=lambda: [0])
    )
    check: _Arguments = msgspec.field(default_factory=list)
    timeout_s: _Seconds = 900


class FileRecipe(Recipe, frozen=True, kw_only=True, tag="file"):
    """One file, replaced atomically; ``reload`` runs afterwards, and its failure brings the old one back."""

    path: _AbsolutePath
    mode: Annotated[int, Meta(ge=0, le=0o777)] = 0o644
    reload: _Arguments = msgspec.field(default_factory=list)
    timeout_s: _Seconds = 60


class AgentRecipe(Recipe, frozen=True, kw_only=True, tag="agent"):
    """The agent itself, as one file, kept beside the version that runs and started instead of it.

    ``timeout_s`` is how long the new version may run until the admin server has heard of it; then, or when it
    has ended a few times before, the version before is started again.
    """

    timeout_s: _Seconds = 300


AnyRecipe: TypeAlias = TreeRecipe | DebRecipe | CommandRecipe | FileRecipe | AgentRecipe


class Mirror(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTPS server outside the fleet that has an artifact, byte for byte.

    One with a lower ``priority`` is asked first, as with RFC 5854, section 4.2.16.1; ``region`` is a name of
    the organisation's own for where it is near, such as ``eu``, and empty when that does not matter.
    """

    url: Annotated[str, Meta(max_length=2_048)]
    priority: Annotated[int, Meta(ge=0, le=255)] = 100
    region: Annotated[str, Meta(pattern=r"^[a-z0-9-]*\Z", max_length=32)] = ""

    def __str__(self) -> str:
        """Return it as people write it: ``https://h/f,priority=10,region=eu``."""
        priority = "" if self.priority == Mirror(url="").priority else f",priority={self.priority}"
        return self.url + priority + (f",region={self.region}" if self.region else "")


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """A way to make a release's artifact from an older one: what ``zstd --patch-from`` makes, as an artifact.

    ``packing`` names what both artifacts are unpacked from before they are compared, and how the result is
    packed again (:mod:`p2pdist.install.packing`); empty where their bytes are compared as they are. Whoever
    does not know it takes the whole artifact. Lengths are bytes.
    """

    base: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    """The info-hash of the older artifact."""
    base_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    base_length: Annotated[int, Meta(ge=1, le=limits.ARTIFACT_BYTES_MAX)]
    info_hash: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    length: Annotated[int, Meta(ge=1, le=limits.ARTIFACT_BYTES_MAX)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    window_log: Annotated[int, Meta(ge=10, le=limits.DELTA_WINDOW_LOG_MAX)]
    """The binary logarithm of the window that applying it takes."""
    packing: Annotated[str, Meta(pattern=r"^[a-z0-9 .-]*\Z", max_length=64)] = ""
    base_unpacked: Annotated[int, Meta(ge=0, le=limits.DELTA_UNPACKED_BYTES_MAX)]
    """The length of the older content as it is compared: unpacked, if there is a packing."""
    unpacked: Annotated[int, Meta(ge=0, le=limits.DELTA_UNPACKED_BYTES_MAX)]
    """The same of the new content."""


class ReleaseCustom(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """The ``custom`` field of a release's TUF target. Integers and strings only: TUF takes no floats."""

    product: Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
    version: Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
    sequence: Annotated[int, Meta(ge=1, le=2**53)]
    platform: Annotated[str, Meta(pattern=r"^(any|[a-z0-9]+(-[a-z0-9_]+)?)\Z", max_length=64)]
    """``any``, an operating system (``linux``), or with its architecture (``linux-x86_64``)."""
    info_hash: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    recipe: AnyRecipe
    prerequisites: Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(max_length=64)] = msgspec.field(
        default_factory=list
    )
    """``product>=sequence`` in the same channel, all of which must be installed first."""
    rollback_from: Annotated[int, Meta(ge=1, le=2**53)] | None = None
    """A signed permission: a device whose floor is at most this may go down to this release."""
    mirrors: Annotated[
        list[Annotated[str, Meta(max_length=2_048)] | Mirror], Meta(max_length=limits.MIRRORS_MAX)
    ] = msgspec.field(default_factory=list)
    """A plain string is a :class:`Mirror` of which nothing more is said."""
    deltas: Annotated[list[Delta], Meta(max_length=limits.DELTAS_MAX)] = msgspec.field(default_factory=list)


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a product, as the channel's keys have signed it."""

    target: TargetPath
    channel: ChannelName
    product: ProductName
    version: str
    sequence: int
    platform: str
    length: int
    sha256: str
    info_hash: InfoHash
    recipe: AnyRecipe
    prerequisites: tuple[str, ...] = ()
    rollback_from: int | None = None
    mirrors: tuple[Mirror, ...] = ()
    deltas: tuple[Delta, ...] = ()

    def contents(self) -> tuple[Release, ...]:
        """Return what is published, kept and served for this release: each delta, and the release itself.

        The deltas from two bases may be the same bytes, and then are one content.
        """
        deltas = {delta.info_hash: self.carried_by(delta) for delta in self.deltas}
        return (*deltas.values(), self)

    def carried_by(self, delta: Delta) -> Release:
        """Return this release with a delta in the place of its artifact: content like any other on its way,
        and nothing that is installed."""
        return msgspec.structs.replace(
            self,
            length=delta.length,
            sha256=delta.sha256,
            info_hash=InfoHash(delta.info_hash),
            mirrors=(),
            deltas=(),
        )

    def fits(self, platform: str) -> bool:
        """Whether a device with *platform* (``linux-x86_64``) is one that this release is for."""
        return self.platform in ("any", platform, platform.partition("-")[0])


class SeedGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A signed statement that a node may act as a distribution point.

    It is the ``custom`` field of the target ``points/<node>.grant``, whose content is the same in
    canonical JSON. ``scope`` is a group with all its subgroups; the node itself may stand elsewhere.
    ``addresses`` are ``host:port`` of its links, tried in order. 0 means unlimited. A point that is
    ``dialled`` stands where nothing may be dialled from (a DMZ): those above dial it, as those below do.
    """

    node: NodeId
    duties: tuple[Duty, ...]
    scope: GroupPath
    addresses: tuple[str, ...]
    expires: Annotated[int, Meta(ge=0, le=2**40)]
    """Unix seconds."""
    disk_bytes: Annotated[int, Meta(ge=0)] = 0
    wan_bytes_per_s: Annotated[int, Meta(ge=0)] = 0
    dialled: bool = False


class Catalog(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one accepted set of metadata says.

    ``versions`` are by role. ``expires`` (Unix seconds) is when the first role in it expires. ``stale``
    says that the roles which the admin server signs have expired already: it still says who may serve
    which bytes, and decides nothing about what is installed. ``expires`` is about the other roles then.
    ``left_out`` maps what is not believed although it is signed (a target that is malformed, a channel
    that has expired) to the reason; it is to be reported.
    """

    releases: Mapping[TargetPath, Release]
    grants: Mapping[NodeId, SeedGrant]
    channels: tuple[ChannelName, ...]
    versions: Mapping[str, int]
    expires: int
    left_out: Mapping[str, str] = msgspec.field(default_factory=dict)
    stale: bool = False

    def contents(self) -> list[Release]:
        """Return all content that is signed: of every release its artifact and its deltas."""
        return [each for release in self.releases.values() for each in release.contents()]

    @property
    def roles_left_out(self) -> frozenset[str]:
        """The channels among :attr:`left_out`: nothing is known of their releases for now."""
        return frozenset(what for what in self.left_out if "/" not in what)

    def next_expiry(self, now: float) -> float:
        """Return when something in it expires next after Unix time *now*, or now if a role has expired."""
        return min([self.expires, *(grant.expires for grant in self.grants.values() if grant.expires > now)])
