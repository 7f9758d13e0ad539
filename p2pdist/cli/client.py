"""The HTTP API as typed calls. Blocking: a command does one thing after the other."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

import httpx
import msgspec

import p2pdist
from p2pdist.cli.profile import Target
from p2pdist.documents import decode_json
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.wire.api import PROBLEM_TYPE, ProblemDetails

T = TypeVar("T", bound=msgspec.Struct)

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_FAMILIES: Mapping[str, type[P2PDistError]] = {
    "usage": UsageError,
    "offset": UsageError,
    "denied": UsageError,
    "trust": TrustError,
    "peer": PeerError,
    "unavailable": Unavailable,
}


class Client:
    """One server's API. Use it as a context manager.

    Raises:
        UsageError: the authority's certificate is damaged.
    """

    def __init__(self, target: Target) -> None:
        self._server = target.server
        try:
            context = ssl.create_default_context(cadata=target.ca_pem)
        except ssl.SSLError as error:
            raise UsageError(f"the authority's certificate is damaged ({error.reason})") from None
        self._http = httpx.Client(
            base_url=f"{target.server}/api/v1",
            verify=context,
            timeout=_TIMEOUT,
            trust_env=False,  # a proxy in the environment is for other things
            headers={
                "authorization": f"Bearer {target.token}",
                "user-agent": f"p2pdist/{p2pdist.__version__}",
            },
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str, answer: type[T], **query: str | int) -> T:
        """Ask for something."""
        return self._decoded(self._send("GET", path, query=query), answer)

    def post(self, path: str, answer: type[T], body: msgspec.Struct | None = None) -> T:
        """Do something."""
        content = msgspec.json.encode(body) if body is not None else None
        return self._decoded(self._send("POST", path, content=content), answer)

    def delete(self, path: str, answer: type[T]) -> T:
        """Remove something."""
        return self._decoded(self._send("DELETE", path), answer)

    def get_bytes(self, path: str) -> bytes:
        """Ask for a file."""
        return self._send("GET", path).content

    def put_stream(
        self, path: str, chunks: Iterator[bytes], body_bytes: int, answer: type[T], **query: str | int
    ) -> T:
        """Send *body_bytes* raw bytes."""
        headers = {"content-length": str(body_bytes), "content-type": "application/octet-stream"}
        response = self._send("PUT", path, content=chunks, query=query, headers=headers)
        return self._decoded(response, answer)

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Iterator[bytes] | None = None,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send one request.

        Raises:
            P2PDistError: what the server says is wrong, in its family.
            Unavailable: the server cannot be reached.
            TrustError: who answers is not the fleet's server.
        """
        try:
            response = self._http.request(
                method, path, content=content, params=dict(query or {}), headers=dict(headers or {})
            )
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.status_code != 200:
            content_type = response.headers.get("content-type", "")
            raise problem(response.status_code, content_type, response.content)
        return response

    def _decoded(self, response: httpx.Response, answer: type[T]) -> T:
        return decode_json(
            response.content,
            answer,
            f"{self._server} answered with something else than expected",
            hint="compare the versions: p2pdist --version, and p2pdist status",
            family=PeerError,
        )

    def _unreachable(self, error: httpx.TransportError) -> P2PDistError:
        text = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return TrustError(
                f"{self._server} does not show a certificate of this fleet ({text})",
                hint="check the address, and the certificate given to p2pdist login",
            )
        return Unavailable(
            f"{self._server} cannot be reached ({text})",
            hint="check that p2pdist-server runs there and that nothing blocks the port",
        )


def segment(text: str) -> str:
    """Return *text* as one part of a path, whatever is in it.

    Raises:
        UsageError: it cannot be one.
    """
    if not text or text in (".", "..") or "\0" in text:
        raise UsageError(f"{text!r} is not a name", hint="write a device's name or the beginning of its id")
    return quote(text, safe="")


def problem(status: int, content_type: str, body: bytes) -> P2PDistError:
    """Return what an answer of the API that is no success says, in its family."""
    if content_type == PROBLEM_TYPE:
        try:
            said: ProblemDetails = decode_json(body, ProblemDetails, "it is no problem")
        except UsageError:
            pass
        else:
            return _FAMILIES.get(said.title, Unavailable)(said.detail, hint=said.hint)
    return Unavailable(
        f"the server answered with status {status}", hint="is this the API's address and port?"
    )
