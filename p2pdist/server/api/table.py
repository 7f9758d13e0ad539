"""What a route is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from starlette.requests import Request

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.wire.api import ApiRole

if TYPE_CHECKING:
    from p2pdist.server.api.context import Api

B = TypeVar("B")

Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[B]):
    """One request, checked: who asks, when, and what.

    Attributes:
        actor: The name of the token that was shown; empty where none is needed.
        now: Unix seconds.
        body: The decoded body; None for a route without one.
        path: The variable parts of the path.
        query: The query's parameters; none but the route's own are let through.
        request: For handlers that stream.
    """

    actor: str
    now: int
    body: B
    path: Mapping[str, str]
    query: Mapping[str, str]
    request: Request

    def query_int(self, name: str, default: int | None = None, *, at_most: int) -> int:
        """Return a whole number from the query.

        Raises:
            UsageError: it is missing without a default, not a number, negative or too large.
        """
        text = self.query.get(name)
        if text is None:
            if default is None:
                raise UsageError(f"the query parameter {name} is missing")
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) > at_most:
            raise UsageError(f"{name}={text[:30]!r} is not a number from 0 to {at_most}")
        return int(text)


Handler = Callable[["Api", Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of the API.

    Attributes:
        role: The least role that may use it; None: anybody, without a token.
        body: The type of the JSON body, if there is one.
        answer: The type of the JSON answer; ``bytes`` is JSON that is ready to send.
        query: The names of the query's parameters, with what they mean.
        streams: The body is raw bytes, which the handler reads itself.
    """

    method: Method
    path: str
    summary: str
    handler: Handler
    answer: Any
    role: ApiRole | None = "reader"
    body: type | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    streams: bool = False
    body_bytes_max: int = limits.API_BODY_BYTES_MAX
