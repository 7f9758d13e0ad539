"""What all requests and answers of the API have in common."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits

Text = Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]
GroupText = Annotated[str, Meta(max_length=limits.GROUP_PATH_CHARS_MAX, description="a group's path")]
TargetText = Annotated[
    str, Meta(max_length=limits.TARGET_PATH_CHARS_MAX, description="a target path, or product@version")
]
DeviceText = Annotated[
    str, Meta(max_length=255, description="a device's name, its id, or the beginning of its id")
]
ApiRole = Literal["admin", "operator", "reader"]

PROBLEM_TYPE = "application/problem+json"
TOKEN_LIFE_S_MAX = 365 * 24 * 3600


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what is sent to the server."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what the server answers."""


class ProblemDetails(Answer, frozen=True, kw_only=True):
    """Why a request was not carried out (RFC 9457). ``hint`` is the next step."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""


class Done(Answer, frozen=True, kw_only=True):
    """It was carried out, and there is nothing more to say."""

    done: bool = True


class Health(Answer, frozen=True, kw_only=True):
    """The server answers. ``store`` is ``ok``, or why the database cannot be used."""

    status: Literal["ok", "impaired"]
    store: str
    version: str
