"""The public face of the room: open a link, serve links, and what they are made of."""

from __future__ import annotations

from p2pdist.net.accepting import OpenLinks, serve_links
from p2pdist.net.answering import RequestHandler, RequestTable
from p2pdist.net.bytestream import ByteStream
from p2pdist.net.calling import Call, Calls
from p2pdist.net.dialling import open_link, open_stranger_link
from p2pdist.net.established import Link, LinkStatistics
from p2pdist.net.streaming import OfferedStream, StreamHandler, StreamTable

__all__ = [
    "ByteStream",
    "Call",
    "Calls",
    "Link",
    "LinkStatistics",
    "OfferedStream",
    "OpenLinks",
    "RequestHandler",
    "RequestTable",
    "StreamHandler",
    "StreamTable",
    "open_link",
    "open_stranger_link",
    "serve_links",
]
