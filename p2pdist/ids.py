"""Identifiers: one type and one parser each, so that no bare string travels through the system.

A parser takes outside text, checks it completely and returns the type; nothing else makes one from
outside data. Every identifier is safe as a file name and as a part of a DNS name or a URI, except
:data:`GroupPath` and :data:`TargetPath`, whose parts are.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NewType

from p2pdist import limits
from p2pdist.errors import UsageError

NodeId = NewType("NodeId", str)
"""A node: 32 characters of lower-case base32, the first 20 bytes of SHA-256 over its Ed25519 key."""

InfoHash = NewType("InfoHash", str)
"""An artifact's BitTorrent v2 info-hash (BEP 52): 64 lower-case hexadecimal digits."""

ChannelName = NewType("ChannelName", str)
"""A channel: a line of releases with its own signing keys and its own swarm."""

FleetName = NewType("FleetName", str)
"""The organisation's fleet: one admin server, one trust root, one certificate authority."""

SwarmName = NewType("SwarmName", str)
"""The DNS name that a node's certificate must carry to be let into a channel's swarm."""

GroupPath = NewType("GroupPath", str)
"""An administration group, from the root: ``/``, ``/emea``, ``/emea/berlin``."""

ProductName = NewType("ProductName", str)
"""A product within a channel."""

TargetPath = NewType("TargetPath", str)
"""A TUF target path: ``channel/product/version/file``."""

_NODE_ID = re.compile(r"[a-z2-7]{32}\Z")
_INFO_HASH = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._+-]*[a-z0-9])?\Z")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~=@-]*\Z")


def node_id_of(public_key: bytes) -> NodeId:
    """Derive the id of the node that holds the Ed25519 key *public_key* (32 bytes)."""
    if len(public_key) != 32:
        raise UsageError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
    digest = hashlib.sha256(public_key).digest()[:20]
    return NodeId(base64.b32encode(digest).decode().lower())


def parse_node_id(text: str) -> NodeId:
    """Check a node id. Raises :class:`~p2pdist.errors.UsageError`."""
    if not _NODE_ID.match(text):
        raise UsageError(f"{_shown(text)} is not a node id", hint="it has 32 characters of a-z and 2-7")
    return NodeId(text)


def parse_info_hash(text: str) -> InfoHash:
    """Check a v2 info-hash. Raises :class:`~p2pdist.errors.UsageError`."""
    if not _INFO_HASH.match(text):
        raise UsageError(f"{_shown(text)} is not an info-hash", hint="it has 64 hexadecimal digits")
    return InfoHash(text)


def parse_channel(text: str) -> ChannelName:
    """Check a channel's name: a DNS label, because the swarm's name is made from it."""
    if len(text) > limits.CHANNEL_NAME_CHARS_MAX or not _LABEL.match(text):
        raise UsageError(
            f"{_shown(text)} is not a channel name",
            hint=f"use a-z, 0-9 and '-', at most {limits.CHANNEL_NAME_CHARS_MAX} characters",
        )
    return ChannelName(text)


def parse_product(text: str) -> ProductName:
    """Check a product's name."""
    if len(text) > limits.NAME_CHARS_MAX or not _NAME.match(text):
        raise UsageError(f"{_shown(text)} is not a product name", hint="use a-z, 0-9, '.', '_', '+' and '-'")
    return ProductName(text)


def parse_group(text: str) -> GroupPath:
    """Check an administration group's path, from the root ``/``."""
    if text == "/":
        return GroupPath(text)
    parts = text.split("/")
    if (
        parts[0] != ""
        or len(parts) == 1
        or len(text) > limits.GROUP_PATH_CHARS_MAX
        or not all(_NAME.match(p) for p in parts[1:])
    ):
        raise UsageError(
            f"{_shown(text)} is not a group path", hint="write it from the root, such as /emea/berlin"
        )
    return GroupPath(text)


def parse_target(text: str) -> TargetPath:
    """Check a target path: four parts, none of which could leave its directory."""
    parts = text.split("/")
    if len(text) > limits.TARGET_PATH_CHARS_MAX or len(parts) != 4 or not all(_FILE.match(p) for p in parts):
        raise UsageError(
            f"{_shown(text)} is not a target path", hint="it is channel/product/version/file without '..'"
        )
    return TargetPath(text)


def parse_fleet(text: str) -> FleetName:
    """Check a fleet's name: a DNS label, because the names of its swarms end in it."""
    if len(text) > limits.CHANNEL_NAME_CHARS_MAX or not _LABEL.match(text):
        raise UsageError(
            f"{_shown(text)} is not a fleet name",
            hint=f"use a-z, 0-9 and '-', at most {limits.CHANNEL_NAME_CHARS_MAX} characters",
        )
    return FleetName(text)


def swarm_of(channel: ChannelName, fleet: FleetName) -> SwarmName:
    """Name the swarm of *channel* in *fleet*."""
    return SwarmName(f"{channel}.{fleet}.swarm.p2pdist.internal")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
