"""One request to one mirror, over HTTPS, through a proxy if there is one.

A mirror can do nothing but send bytes of the range that it was asked for: an answer that is anything else,
that redirects to where nothing is fetched from, that is late, or slower than any line, is a
:class:`~p2pdist.core.mirrors.MirrorFailed`. Redirects are followed here, each checked like a mirror's
address in a signed target. Nothing is taken from the environment, no cookies are kept, nothing is unpacked.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final
from urllib.parse import urljoin

import httpx
import trio

from p2pdist import limits
from p2pdist.core.mirrors import MirrorFailed, parse_retry_after
from p2pdist.errors import UsageError
from p2pdist.net.tls import web_context
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.trust.requirements import check_mirror

_CHUNK_BYTES: Final = 64 * limits.KIB
_WINDOW_BYTES: Final = int(limits.MIRROR_RATE_MIN_BYTES_PER_S * limits.MIRROR_STALL_S)

_WORDS_CHARS: Final = 200  # of an error: some quote what the other side said

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRANSIENT: Final = frozenset({408, 425, 429})
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\Z", re.ASCII)
_LENGTH: Final = re.compile(r"[0-9]{1,15}\Z", re.ASCII)
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{0,200}"\Z', re.ASCII)  # RFC 9110, section 8.8.3


class Answer:
    """A mirror's answer, with the bytes that were asked for to follow.

    Attributes:
        etag: A strong one, or empty.
        length: How many bytes it says that will be; 0: it does not say.
    """

    def __init__(self, body: AsyncIterator[bytes], etag: str, length: int = 0) -> None:
        self.etag = etag
        self.length = length
        self._body = body
        self._waited = 0.0
        self._window = 0

    async def receive(self) -> bytes:
        """Return the next bytes; none at the end. After cancellation nothing more comes.

        Raises:
            MirrorFailed: the connection breaks, or what comes is slower than any line.
        """
        began = trio.current_time()
        try:
            with trio.fail_after(limits.MIRROR_STALL_S - self._waited), _failures():
                data = await anext(self._body, b"")
        except trio.TooSlowError:
            count = self._window
            raise MirrorFailed(f"it sent {count} bytes in {limits.MIRROR_STALL_S:.0f} s") from None
        self._waited += trio.current_time() - began
        self._window += len(data)
        if self._window >= _WINDOW_BYTES or self._waited >= limits.MIRROR_STALL_S:
            self._waited = 0.0
            self._window = 0
        return data


class MirrorClient:
    """Asks mirrors. Made by :func:`open_client`; may be used by several tasks at once."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @asynccontextmanager
    async def ask(
        self, url: str, start: int, end: int, *, length: int, if_range: str = ""
    ) -> AsyncIterator[Answer]:
        """Ask for the bytes from *start* to *end* (excluded) of a file of *length* bytes.

        Args:
            url: The mirror's address, which was checked.
            start: The first byte.
            end: The byte after the last one.
            length: The length that the file must have.
            if_range: The ETag that it must still have; empty for any.

        Raises:
            MirrorFailed: it does not give them.
        """
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if if_range:
            headers["If-Range"] = if_range
        response = await self._follow(url, headers)
        try:
            _check(response, start, end, length=length, conditional=bool(if_range))
            etag = response.headers.get("ETag", "")
            if if_range and etag != if_range:
                raise MirrorFailed("its file has changed", fault="changed")
            body = response.aiter_raw(_CHUNK_BYTES)
            try:
                yield Answer(body, etag if _STRONG_ETAG.match(etag) else "")
            finally:
                await _end(body)
        finally:
            await _close(response)

    @asynccontextmanager
    async def ask_all(self, url: str, *, plain: bool = False) -> AsyncIterator[Answer]:
        """Ask for a whole file, of which nothing is known; whoever receives it bounds it.

        Args:
            url: Its address, which was checked.
            plain: Whether redirects may lead to where there is no TLS: what is signed may come by any way.

        Raises:
            MirrorFailed: it does not give it.
        """
        response = await self._follow(url, {}, plain=plain)
        try:
            _check_whole(response)
            length = response.headers.get("Content-Length", "")
            body = response.aiter_raw(_CHUNK_BYTES)
            try:
                yield Answer(body, "", int(length) if _LENGTH.match(length) else 0)
            finally:
                await _end(body)
        finally:
            await _close(response)

    async def _follow(self, url: str, headers: dict[str, str], *, plain: bool = False) -> httpx.Response:
        """Send the request, and again to where it is redirected. The caller closes what is returned."""
        seen = {url}
        while True:
            response = await self._send(url, headers)
            if response.status_code not in _REDIRECTS:
                return response
            location = response.headers.get("Location", "")
            await _close(response)
            try:
                url = urljoin(url, location)
                check_mirror(url, plain=plain)
            except (UsageError, ValueError):
                raise MirrorFailed("it redirects to what is not https://", fault="useless") from None
            if url in seen:
                raise MirrorFailed("it redirects in a circle", fault="useless")
            seen.add(url)
            if len(seen) > limits.MIRROR_REDIRECTS_MAX + 1:
                raise MirrorFailed(
                    f"it redirects more than {limits.MIRROR_REDIRECTS_MAX} times", fault="useless"
                )

    async def _send(self, url: str, headers: dict[str, str]) -> httpx.Response:
        try:
            with trio.fail_after(limits.MIRROR_ANSWER_S), _failures():
                request = self._client.build_request("GET", url, headers=headers)
                return await self._client.send(request, stream=True)
        except trio.TooSlowError:
            raise MirrorFailed(f"it has not answered in {limits.MIRROR_ANSWER_S:.0f} s") from None


@asynccontextmanager
async def open_client(settings: MirrorSettings) -> AsyncIterator[MirrorClient]:
    """Open what asks mirrors, and close its connections when the block ends.

    Raises:
        UsageError: the settings make no sense, or a file in them is not what it should be.
        Unavailable: a file in them cannot be read.
    """
    settings.check()
    context = await trio.to_thread.run_sync(lambda: web_context(settings.read_ca()))
    password = await trio.to_thread.run_sync(settings.read_password)
    proxy = None
    if settings.proxy:
        auth = (settings.proxy_user, password) if settings.proxy_user else None
        over_tls = settings.proxy.startswith("https:")
        proxy = httpx.Proxy(settings.proxy, auth=auth, ssl_context=context if over_tls else None)
    connections = limits.MIRROR_REQUESTS_MAX
    async with httpx.AsyncClient(
        verify=context,
        proxy=proxy,
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113 (every call here has a deadline of our own, which counts slow bytes too)
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        headers={"User-Agent": "p2pdist", "Accept": "*/*", "Accept-Encoding": "identity"},
    ) as client:
        yield MirrorClient(client)


def _check(response: httpx.Response, start: int, end: int, *, length: int, conditional: bool) -> None:
    """Check that an answer brings what was asked for. Raises MirrorFailed."""
    status = response.status_code
    if status == 200 and conditional:
        raise MirrorFailed("its file has changed", fault="changed")
    if status == 200:
        raise MirrorFailed("it answers a range with the whole file", fault="useless")
    _check_status(response, 206)
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != start or not start <= int(found[2]) < end:
        raise MirrorFailed("it answers with another range", fault="useless")
    if found[3] not in ("*", str(length)):
        raise MirrorFailed(f"its file has {found[3]} bytes instead of {length}", fault="useless")
    _check_unpacked(response)


def _check_whole(response: httpx.Response) -> None:
    _check_status(response, 200)
    _check_unpacked(response)


def _check_status(response: httpx.Response, expected: int) -> None:
    status = response.status_code
    if status in _TRANSIENT or status >= 500:
        wait = parse_retry_after(response.headers.get("Retry-After", ""), now=time.time())
        raise MirrorFailed(f"it answers {status}", retry_after_s=wait)
    if status != expected:
        raise MirrorFailed(f"it answers {status}", fault="useless")


def _check_unpacked(response: httpx.Response) -> None:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise MirrorFailed("it answers with packed bytes", fault="useless")


async def _end(body: AsyncIterator[bytes]) -> None:
    """End an answer's body in the middle.

    httpx has three generators inside of one another and closes only the outermost, so the others would be
    left to the garbage collector. A read that is cancelled ends them all, after what is in memory already.
    """
    with trio.CancelScope() as scope, suppress(httpx.HTTPError, httpx.StreamError):
        scope.cancel()
        async for _ in body:
            pass


async def _close(response: httpx.Response) -> None:
    """Close an answer, also when cancelled: what was not read of it closes its connection."""
    with trio.CancelScope(deadline=trio.current_time() + limits.LINK_CLOSE_S, shield=True):
        await response.aclose()


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what httpx raises into MirrorFailed."""
    try:
        yield
    except httpx.ProxyError as error:
        raise MirrorFailed(f"the proxy does not let us through to it ({_words(error)})") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise MirrorFailed(f"the connection failed ({_words(error)})") from error


def _words(error: BaseException) -> str:
    """Return the first words in a chain of errors: those of TLS stand behind wordless ones."""
    reason: BaseException | None = error
    while reason is not None and not str(reason):
        reason = reason.__cause__ or reason.__context__
    return str(reason or type(error).__name__)[:_WORDS_CHARS]
