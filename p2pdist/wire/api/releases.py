"""Channels, releases, uploads, publications, deployments."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.api.base import Answer, DeviceText, GroupText, Request, TargetText
from p2pdist.wire.api.members import DeviceDeployment


class ChannelInfo(Answer, frozen=True, kw_only=True):
    """A channel: how many releases it has, and the version of its metadata."""

    name: str
    releases: int
    version: int


class ChannelList(Answer, frozen=True, kw_only=True):
    """Every channel."""

    channels: list[ChannelInfo]


class DeltaInfo(Answer, frozen=True, kw_only=True):
    """A delta of a release: the info-hashes of the artifact that it is made from and of itself, its bytes."""

    base: str
    info_hash: str
    length: int


class ReleaseInfo(Answer, frozen=True, kw_only=True):
    """A signed release. ``problem`` says why the server cannot serve its content; empty: it can.

    One that is ``mirrored`` it does not serve: distribution points read it from its ``mirrors``.
    """

    target: str
    channel: str
    product: str
    version: str
    sequence: int
    platform: str
    recipe: str
    length: int
    sha256: str
    info_hash: str
    rollback_from: int | None
    problem: str
    mirrored: bool
    mirrors: list[str]
    deltas: list[DeltaInfo] = msgspec.field(default_factory=list)


class ReleaseList(Answer, frozen=True, kw_only=True):
    """Every signed release, and what is signed but not believed, with the reason."""

    releases: list[ReleaseInfo]
    left_out: dict[str, str]


class ArtifactState(Answer, frozen=True, kw_only=True):
    """How much of an artifact's content is at the server."""

    info_hash: str
    stored_bytes: int
    complete: bool


class NewPublication(Request, frozen=True, kw_only=True):
    """Signed metadata files by name, and torrents by info-hash; the content was uploaded before.

    With ``mirrored``, only that of releases without mirrors had to be.
    """

    metadata: Annotated[dict[str, bytes], Meta(max_length=limits.BUNDLE_FILES_MAX)]
    torrents: Annotated[dict[str, bytes], Meta(max_length=limits.BUNDLE_FILES_MAX)] = msgspec.field(
        default_factory=dict
    )
    mirrored: bool = False


class Published(Answer, frozen=True, kw_only=True):
    """What is published now.

    ``expires`` is when the first role in it does, ``people_expire`` the first that people sign.
    """

    versions: dict[str, int]
    releases: int
    points: int
    expires: int
    people_expire: int | None
    left_out: dict[str, str]


class NewDeployment(Request, frozen=True, kw_only=True):
    """Order a release onto a group with all its subgroups, devices that join later included."""

    target: TargetText
    group: GroupText


class DeploymentInfo(Answer, frozen=True, kw_only=True):
    """A deployment. ``devices`` are those that it reaches now, ``stages`` how many are where.

    A device that has said nothing yet counts as ``unheard``.
    """

    id: str
    target: str
    group: str
    created: int
    created_by: str
    stopped: int | None
    devices: int
    stages: dict[str, int]


class RetryDeployment(Request, frozen=True, kw_only=True):
    """Try again on devices that failed or refused; without names on all of them."""

    devices: Annotated[list[DeviceText], Meta(max_length=limits.RETRY_DEVICES_MAX)] = msgspec.field(
        default_factory=list
    )


class RetriedDeployment(Answer, frozen=True, kw_only=True):
    """The devices (their ids) that are to try again, now or when they are there again."""

    deployment: DeploymentInfo
    devices: list[str]


class DeploymentList(Answer, frozen=True, kw_only=True):
    """Every deployment, newest first."""

    deployments: list[DeploymentInfo]


class DeploymentDetail(Answer, frozen=True, kw_only=True):
    """A deployment with each of its devices.

    ``finished`` once each has installed, failed or refused, and is not to try again.
    """

    deployment: DeploymentInfo
    finished: bool
    devices: list[DeviceDeployment]
