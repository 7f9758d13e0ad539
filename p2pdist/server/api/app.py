"""The Starlette application: from a request to a handler, and from an error to a problem document."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import cache
from typing import Any

import msgspec
import trio
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.logs import get_logger
from p2pdist.server.api import sessions
from p2pdist.server.api.context import Api
from p2pdist.server.api.openapi import describe
from p2pdist.server.api.routes import PREFIX, ROUTES
from p2pdist.server.api.table import Call, Route
from p2pdist.server.uploads import OffsetMismatch
from p2pdist.store import tokens
from p2pdist.wire.api import PROBLEM_TYPE, ApiRole, ArtifactState, ProblemDetails

_log = get_logger()

_RANKS: dict[ApiRole, int] = {"reader": 0, "operator": 1, "admin": 2}
_STATUS: tuple[tuple[type[P2PDistError], int, str], ...] = (
    (OffsetMismatch, 409, "offset"),
    (UsageError, 400, "usage"),
    (TrustError, 422, "trust"),
    (PeerError, 422, "peer"),
    (Unavailable, 503, "unavailable"),
)
_DRAIN_BYTES = 16 * limits.MIB
_DRAIN_S = 5.0
_REASON_CHARS = 30  # of a closed WebSocket: RFC 6455 allows 123 bytes
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class _Denied(P2PDistError):
    """The token is missing, unknown or not enough."""

    def __init__(self, what: str, *, status: int, hint: str) -> None:
        super().__init__(what, hint=hint)
        self.status = status


def make_app(api: Api) -> Starlette:
    """Make the application that serves *api*."""
    routes = [StarletteRoute(f"{PREFIX}/openapi.json", _openapi, methods=["GET"])]
    by_path: dict[str, list[Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, []).append(route)
    for path, same in by_path.items():
        methods = [route.method for route in same]
        routes.append(StarletteRoute(PREFIX + path, _endpoint(api, same), methods=[str(m) for m in methods]))
    paths = WebSocketRoute(f"{PREFIX}/sessions/{{session}}/path", _path_endpoint(api))
    app = Starlette(routes=[*routes, paths], exception_handlers={HTTPException: _http_problem})
    app.router.redirect_slashes = False  # a path that is nearly right is told so, as any other
    return app


async def _openapi(request: Request) -> Response:
    return _json(await trio.to_thread.run_sync(_description))


@cache
def _description() -> bytes:
    return msgspec.json.encode(describe(ROUTES, PREFIX))


def _endpoint(api: Api, routes: Sequence[Route]) -> Callable[[Request], Awaitable[Response]]:
    by_method = {route.method: route for route in routes}

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        route = by_method.get(method)  # type: ignore[call-overload]  # Starlette lets only these through
        assert route is not None
        return await _serve(api, route, request)

    return endpoint


async def _serve(api: Api, route: Route, request: Request) -> Response:
    """Answer one request. The one boundary at which a handler's own defects stop."""
    now = int(time.time())
    try:
        actor = await _authenticate(api, route.role, request.headers, now)
        call: Call[Any] = Call(
            actor=actor,
            now=now,
            body=await _body(route, request),
            path=request.path_params,
            query=_query(route, request),
            request=request,
        )
        response = _answer(await route.handler(api, call))
    except P2PDistError as error:
        response = _problem(error, route.path)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is there to read it
    except Exception as error:  # noqa: BLE001 - one request's handler; the server goes on
        _log.error("api.failed", path=route.path, method=route.method, exc_info=error)
        response = _problem(
            Unavailable("the request failed", hint="see the server's log"), route.path, status=500
        )
    return await _once_heard(request, response)


def _path_endpoint(api: Api) -> Callable[[WebSocket], Awaitable[None]]:
    """A path of a session: whoever announced it, and nobody else, reaches the device through it."""

    async def endpoint(socket: WebSocket) -> None:
        try:
            actor = await _authenticate(api, "operator", socket.headers, int(time.time()))
            async with api.sessions.path(socket.path_params["session"], actor) as stream:
                await socket.accept()
                await sessions.relay(socket, stream)
                await socket.close()
        except P2PDistError as error:
            if socket.application_state is WebSocketState.CONNECTING:
                await socket.send_denial_response(_problem(error, socket.url.path))
            else:
                await socket.close(code=1011, reason=error.what[:_REASON_CHARS])
        except (WebSocketDisconnect, RuntimeError):
            pass  # whoever opened it is gone: Starlette says so with either

    return endpoint


async def _once_heard(request: Request, response: Response) -> Response:
    """Return the response once all of the request is there: anycorn closes the connection if it is not.

    Else a client whose body comes after the answer finds its next request on that connection lost.
    """
    if not await _drained(request):
        response.headers["connection"] = "close"  # what was not read must not be taken for a request
    return response


async def _drained(request: Request) -> bool:
    """Read what is left of a body, so that a client that is still sending gets to hear the answer.

    Returns:
        False when it is too much, or comes too slowly.
    """
    left = _DRAIN_BYTES
    with trio.move_on_after(_DRAIN_S):
        try:
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    left -= len(chunk)
                    if left < 0:
                        return False
        except RuntimeError:  # Starlette's way to say that it was read to its end
            return True
        except ClientDisconnect:
            return False
        return True
    return False


def _answer(answer: Any) -> Response:
    response = _json(answer if isinstance(answer, bytes) else msgspec.json.encode(answer))
    if isinstance(answer, ArtifactState):  # so that HEAD tells where an upload continues
        response.headers["x-stored-bytes"] = str(answer.stored_bytes)
        response.headers["x-complete"] = "true" if answer.complete else "false"
    return response


async def _authenticate(api: Api, role: ApiRole | None, headers: Headers, now: int) -> str:
    if role is None:
        return ""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _Denied("a token is needed", status=401, hint="p2pdist login stores one for this server")
    record = await api.store.read(tokens.find_api_token, token.strip(), now)
    if record is None:
        raise _Denied(
            "the token is unknown, withdrawn or expired",
            status=401,
            hint="make a new one at the server: p2pdist-server token",
        )
    if _RANKS[record.role] < _RANKS[role]:
        raise _Denied(
            f"the token of {record.name} has the role {record.role}, and this needs {role}",
            status=403,
            hint="use a token with that role",
        )
    return record.name


async def _body(route: Route, request: Request) -> Any:
    if route.body is None:
        return None
    data = bytearray()
    with trio.move_on_after(limits.API_SILENCE_S) as silence:
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                silence.deadline = trio.current_time() + limits.API_SILENCE_S
                data += chunk
                if len(data) > route.body_bytes_max:
                    raise UsageError(f"the request's body is larger than {route.body_bytes_max} bytes")
    if silence.cancelled_caught:
        raise UsageError("the request's body did not come", hint="send it again")
    try:
        return msgspec.json.decode(bytes(data) or b"{}", type=route.body, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"the request's body is not a valid {route.body.__name__} ({error})",
            hint="see /api/v1/openapi.json",
        ) from None


def _query(route: Route, request: Request) -> dict[str, str]:
    unknown = sorted(set(request.query_params) - set(route.query))
    if unknown:
        known = ", ".join(route.query) or "none"
        raise UsageError(f"there is no query parameter {unknown[0][:60]!r} here", hint=f"known are: {known}")
    return dict(request.query_params)


def _problem(error: P2PDistError, path: str, *, status: int | None = None) -> Response:
    family = "denied"
    if status is None and isinstance(error, _Denied):
        status = error.status
    for kind, code, name in _STATUS:
        if isinstance(error, kind):
            status, family = status or code, name
            break
    status = status or 500
    if status >= 500:
        _log.warning("api.unavailable", path=path, reason=str(error))
    return _problem_document(status, family, error.what, error.hint)


def _problem_document(status: int, family: str, what: str, hint: str) -> Response:
    document = ProblemDetails(
        type=f"urn:p2pdist:problem:{family}", title=family, status=status, detail=what, hint=hint
    )
    headers = dict(_HEADERS)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(msgspec.json.encode(document), status, headers, PROBLEM_TYPE)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"nothing answers {request.method} {request.url.path[:120]} here"
    response = _problem_document(error.status_code, "usage", what, "see /api/v1/openapi.json")
    return await _once_heard(request, response)


def _json(data: bytes) -> Response:
    return Response(data, 200, dict(_HEADERS), "application/json")
