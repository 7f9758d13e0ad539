"""Handlers: channels, releases, uploads, publications."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio
from starlette.requests import ClientDisconnect

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError
from p2pdist.ids import InfoHash, parse_info_hash
from p2pdist.server.api.context import Api
from p2pdist.server.api.table import Call
from p2pdist.store import content
from p2pdist.trust.catalog import Release
from p2pdist.wire import api as wire

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


async def list_channels(api: Api, call: Call[None]) -> wire.ChannelList:
    """Every channel."""
    catalog = api.catalog
    if catalog is None:
        return wire.ChannelList(channels=[])
    counted = Counter(release.channel for release in catalog.releases.values())
    return wire.ChannelList(
        channels=[
            wire.ChannelInfo(
                name=name,
                releases=counted[name],
                version=catalog.versions.get(f"channel-{name}", 0),
            )
            for name in catalog.channels
        ]
    )


async def list_releases(api: Api, call: Call[None]) -> wire.ReleaseList:
    """Every signed release, newest sequence of each product first."""
    ordered = sorted(api.releases.values(), key=lambda r: (r.channel, r.product, -r.sequence, r.target))
    return wire.ReleaseList(
        releases=[_info(api, release) for release in ordered],
        left_out=dict(api.catalog.left_out) if api.catalog is not None else {},
    )


async def show_release(api: Api, call: Call[None]) -> wire.ReleaseInfo:
    """One release, by target path or product@version."""
    return _info(api, api.resolve_release(call.path["target"]))


async def artifact_state(api: Api, call: Call[None]) -> wire.ArtifactState:
    """How much of an artifact is there, so that an upload can go on."""
    info_hash = parse_info_hash(call.path["info_hash"])
    stored, complete = await api.uploads.state(info_hash)
    return wire.ArtifactState(info_hash=info_hash, stored_bytes=stored, complete=complete)


async def upload(api: Api, call: Call[None]) -> wire.ArtifactState:
    """Take in an artifact's content, or the rest of it."""
    info_hash = parse_info_hash(call.path["info_hash"])
    sha256 = call.query.get("sha256", "")
    if not _SHA256.match(sha256):
        raise UsageError("the query parameter sha256 is missing or not a SHA-256 in hexadecimal")
    length = call.query_int("length", at_most=limits.ARTIFACT_BYTES_MAX)
    if not length:
        raise UsageError("an artifact cannot be empty")
    offset = call.query_int("offset", 0, at_most=length)
    async with aclosing(_chunks(call)) as chunks:
        stored, complete = await api.uploads.receive(
            info_hash, chunks, offset=offset, length=length, sha256=sha256, now=call.now
        )
    if complete:
        await api.service.content_arrived(info_hash)
        await api.note(call, "artifact.upload", info_hash)
    return wire.ArtifactState(info_hash=info_hash, stored_bytes=stored, complete=complete)


async def publish(api: Api, call: Call[wire.NewPublication]) -> wire.Published:
    """Take in signed metadata, serve what it names, and tell the fleet."""
    torrents = {parse_info_hash(name): data for name, data in call.body.torrents.items()}
    for info_hash, torrent in torrents.items():
        if len(torrent) > limits.TORRENT_BYTES_MAX:
            raise PeerError(f"the torrent of {info_hash} is too large")
    catalog = await api.service.publish(dict(call.body.metadata), torrents, mirrored=call.body.mirrored)
    hashes = sorted({InfoHash(release.info_hash) for release in catalog.contents()})
    versions = ", ".join(f"{role} {version}" for role, version in sorted(catalog.versions.items()))
    await api.change(call, "publish", versions, content.mark_published, hashes)
    return wire.Published(
        versions=dict(catalog.versions),
        releases=len(catalog.releases),
        points=len(catalog.grants),
        expires=catalog.expires,
        people_expire=api.service.people_expire,
        left_out=dict(catalog.left_out),
    )


async def _chunks(call: Call[None]) -> AsyncGenerator[bytes, None]:
    """The body as it comes. An uploader that goes away or falls silent ends it; what has come is kept."""
    async with aclosing(call.request.stream()) as stream:
        while True:
            chunk = b""
            with trio.move_on_after(limits.API_SILENCE_S) as silence:
                try:
                    chunk = await anext(stream)
                except (StopAsyncIteration, ClientDisconnect):
                    return
            if silence.cancelled_caught:
                return
            yield chunk


def _info(api: Api, release: Release) -> wire.ReleaseInfo:
    return wire.ReleaseInfo(
        target=release.target,
        channel=release.channel,
        product=release.product,
        version=release.version,
        sequence=release.sequence,
        platform=release.platform,
        recipe=type(release.recipe).__name__.removesuffix("Recipe").lower(),
        length=release.length,
        sha256=release.sha256,
        info_hash=release.info_hash,
        rollback_from=release.rollback_from,
        problem=api.problem_of(release),
        mirrored=release.info_hash in api.service.origin.mirrored,
        mirrors=[mirror.url for mirror in release.mirrors],
        deltas=[wire.DeltaInfo(base=d.base, info_hash=d.info_hash, length=d.length) for d in release.deltas],
    )
