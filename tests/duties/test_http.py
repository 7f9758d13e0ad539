"""One request to one mirror: nginx, a proxy, and a server that does everything wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from mirror_servers import (
    NGINX,
    TINYPROXY,
    Asked,
    WebAuthority,
    free_port,
    open_nginx,
    open_server,
    open_tinyproxy,
)

from p2pdist import limits
from p2pdist.core.mirrors import MirrorFailed
from p2pdist.duties.mirrors import http
from p2pdist.duties.mirrors.http import MirrorClient, open_client
from p2pdist.errors import UsageError
from p2pdist.node.mirrorsettings import MirrorSettings

pytestmark = pytest.mark.slow  # servers that stall and break off

CONTENT = bytes(range(256)) * 1_000
LENGTH = len(CONTENT)

Head = Callable[[Asked], bytes]
needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx")
needs_proxy = pytest.mark.skipif(NGINX is None or TINYPROXY is None, reason="needs nginx and tinyproxy")


@pytest.fixture
def authority(tmp_path: Path) -> WebAuthority:
    return WebAuthority(tmp_path)


@pytest.fixture
async def client(authority: WebAuthority) -> AsyncIterator[MirrorClient]:
    async with open_client(MirrorSettings(ca_file=authority.ca_file)) as opened:
        yield opened


@pytest.fixture
def content(tmp_path: Path) -> Path:
    (tmp_path / "www").mkdir()
    path = tmp_path / "www" / "file"
    path.write_bytes(CONTENT)
    return path


async def read(client: MirrorClient, url: str, start: int, end: int, *, if_range: str = "") -> bytes:
    data = b""
    with trio.fail_after(20):
        async with client.ask(url, start, end, length=LENGTH, if_range=if_range) as answer:
            while some := await answer.receive():
                data += some
    return data


async def refusal(client: MirrorClient, url: str, *, if_range: str = "") -> MirrorFailed:
    with pytest.raises(MirrorFailed) as caught:
        await read(client, url, 1_000, 2_000, if_range=if_range)
    return caught.value


# The real thing ----------------------------------------------------------------------------------


@needs_nginx
async def test_a_range_is_read_from_nginx_and_goes_on_only_while_the_file_is_the_same(
    tmp_path: Path, authority: WebAuthority, client: MirrorClient, content: Path
) -> None:
    async with open_nginx(tmp_path / "nginx", authority, content) as mirror:
        assert await read(client, mirror.url, 1_000, 70_000) == CONTENT[1_000:70_000]
        async with client.ask(mirror.url, 0, 10, length=LENGTH) as answer:
            etag = answer.etag
        assert etag
        assert await read(client, mirror.url, 5, 10, if_range=etag) == CONTENT[5:10]
        content.write_bytes(CONTENT[::-1])
        (tmp_path / "www" / "other").write_bytes(CONTENT + b"x")
        trouble = await refusal(client, mirror.url, if_range='"another"')
        assert (trouble.fault, trouble.what) == ("changed", "its file has changed")
        trouble = await refusal(client, mirror.url.replace("/file", "/other"))
        assert (trouble.fault, trouble.what) == (
            "useless",
            f"its file has {LENGTH + 1} bytes instead of {LENGTH}",
        )
        trouble = await refusal(client, mirror.url.replace("/file", "/nothing"))
        assert (trouble.fault, trouble.what) == ("useless", "it answers 404")


@needs_nginx
async def test_nginx_that_redirects_is_followed_and_one_that_is_busy_is_understood(
    tmp_path: Path, authority: WebAuthority, client: MirrorClient, content: Path
) -> None:
    async with AsyncExitStack() as stack:
        honest = await stack.enter_async_context(open_nginx(tmp_path / "a", authority, content))
        for name, rules, fault, wait in (
            ("b", f"return 302 {honest.url};", None, None),
            ("c", "return 301 /file;", "useless", None),
            ("d", "add_header Retry-After 77 always; return 429;", "failed", 77.0),
            ("e", "max_ranges 0;", "useless", None),
        ):
            mirror = await stack.enter_async_context(
                open_nginx(tmp_path / name, authority, content, rules=rules)
            )
            if fault is None:
                assert await read(client, mirror.url, 7, 9) == CONTENT[7:9]
            else:
                trouble = await refusal(client, mirror.url)
                assert (trouble.fault, trouble.retry_after_s) == (fault, wait)


async def test_a_mirror_is_believed_by_the_configured_ca_only(
    tmp_path: Path, authority: WebAuthority, client: MirrorClient
) -> None:
    async with (
        open_server(authority, answering(lambda asked: b"")) as url,
        open_client(MirrorSettings()) as strict,
    ):
        trouble = await refusal(strict, url)
        assert trouble.fault == "failed"
        assert "CERTIFICATE_VERIFY_FAILED" in trouble.what


@needs_proxy
async def test_a_mirror_is_read_through_a_proxy_that_wants_a_password(
    tmp_path: Path, authority: WebAuthority, content: Path
) -> None:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    async with (
        open_nginx(tmp_path / "nginx", authority, content) as mirror,
        open_tinyproxy(tmp_path / "proxy", "ann", "s3cret") as (proxy, log),
    ):
        for word, right in (("s3cret\n", True), ("wrong", False)):
            password.write_text(word)
            settings = MirrorSettings(
                ca_file=authority.ca_file, proxy=proxy, proxy_user="ann", proxy_password_file=password
            )
            async with open_client(settings) as client:
                if right:
                    assert await read(client, mirror.url, 3, 5_000) == CONTENT[3:5_000]
                    assert "CONNECT 127.0.0.1" in log.read_text()
                else:
                    trouble = await refusal(client, mirror.url)
                    assert "the proxy does not let us through" in trouble.what
                    assert "wrong" not in trouble.what


# What no nginx would do --------------------------------------------------------------------------


def answering(head: Head, body: bytes = b"") -> Callable[[trio.abc.Stream, Asked], Awaitable[None]]:
    async def answer(stream: trio.abc.Stream, asked: Asked) -> None:
        await stream.send_all(head(asked) + body)

    return answer


def plain(status: str, more: str = "") -> Head:
    return lambda asked: f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n{more}\r\n".encode()


def loose(more: str = "", body: bytes = b"") -> Head:
    return lambda asked: f"HTTP/1.1 206 Yes\r\n{more}\r\n".encode() + body


OTHER = f"its file has {LENGTH - 1} bytes instead of {LENGTH}"
ELSEWHERE = "it redirects to what is not https://"
PACKED = "it answers with packed bytes"
BROKEN = "the connection failed"
CHUNKED = "Transfer-Encoding: chunked\r\nContent-Range: bytes 1000-1999/*\r\n"


@pytest.mark.parametrize(
    ("head", "fault", "what"),
    [
        (plain("200 OK"), "useless", "it answers a range with the whole file"),
        (plain("204 No Content"), "useless", "it answers 204"),
        (plain("206 Partial Content"), "useless", "it answers with another range"),
        (plain("416 Range Not Satisfiable"), "useless", "it answers 416"),
        (plain("403 Forbidden"), "useless", "it answers 403"),
        (plain("408 Request Timeout"), "failed", "it answers 408"),
        (plain("500 Oh"), "failed", "it answers 500"),
        (plain("302 Found"), "useless", "it redirects in a circle"),
        (plain("302 Found", "Location: http://h/\r\n"), "useless", ELSEWHERE),
        (plain("302 Found", "Location: https://[\r\n"), "useless", ELSEWHERE),
        (plain("302 Found", "Location: ftp://h/\r\n"), "useless", ELSEWHERE),
        (lambda asked: asked.head(LENGTH - 1), "useless", OTHER),
        (
            lambda asked: asked.head(LENGTH, more="Content-Encoding: gzip\r\n"),
            "useless",
            "it answers with packed",
        ),
        (loose("Content-Range: bytes 0-5/9\r\n"), "useless", "it answers with another range"),
        (lambda asked: b"SSH-2.0-OpenSSH\r\n\r\n", "failed", BROKEN),
        (lambda asked: b"", "failed", BROKEN),
        (loose("X: y\r\n" * 40_000), "failed", BROKEN),
        (lambda asked: asked.head(LENGTH) + b"half", "failed", BROKEN),
        (loose(CHUNKED, b"zz\r\n"), "failed", BROKEN),
    ],
)
async def test_an_answer_that_is_not_the_range_is_refused(
    authority: WebAuthority, client: MirrorClient, head: Head, fault: str, what: str
) -> None:
    async with open_server(authority, answering(head)) as url:
        trouble = await refusal(client, url)
    assert (trouble.fault, trouble.what[: len(what)]) == (fault, what)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([200, 206, 302, 404, 429, 503]) | st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["Content-Range", "Content-Encoding", "Retry-After", "ETag"]),
        st.from_regex(r"bytes [0-9*]{1,20}-[0-9]{0,20}/[0-9*]{0,20}", fullmatch=True)
        | st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=40),
    ),
    st.booleans(),
)
def test_any_head_is_the_range_or_a_failure(status: int, headers: dict[str, str], conditional: bool) -> None:
    response = httpx.Response(status, headers=headers)
    try:
        http._check(response, 10, 20, length=100, conditional=conditional)
    except MirrorFailed as error:
        assert error.retry_after_s is None or 0 <= error.retry_after_s <= limits.RETRY_AFTER_S_MAX
    else:
        assert status == 206
        assert headers["Content-Range"].startswith("bytes 10-1")


async def test_redirects_have_an_end(authority: WebAuthority, client: MirrorClient) -> None:
    async def answer(stream: trio.abc.Stream, asked: Asked) -> None:
        await stream.send_all(
            f"HTTP/1.1 307 On\r\nLocation: {asked.path}x\r\nContent-Length: 0\r\n\r\n".encode()
        )

    async with open_server(authority, answer) as url:
        trouble = await refusal(client, url)
    assert (trouble.fault, trouble.what) == ("useless", "it redirects more than 5 times")


async def test_a_mirror_that_says_nothing_is_given_up(
    authority: WebAuthority, client: MirrorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MIRROR_ANSWER_S", 0.5)

    async def answer(stream: trio.abc.Stream, asked: Asked) -> None:
        await trio.sleep_forever()

    async with open_server(authority, answer) as url:
        assert (await refusal(client, url)).what.startswith("it has not answered")


async def test_a_mirror_that_trickles_is_given_up(
    authority: WebAuthority, client: MirrorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MIRROR_STALL_S", 0.5)

    async def answer(stream: trio.abc.Stream, asked: Asked) -> None:
        await stream.send_all(asked.head(LENGTH))
        while True:
            await stream.send_all(b"x")
            await trio.sleep(0.1)

    async with open_server(authority, answer) as url:
        trouble = await refusal(client, url)
    assert trouble.fault == "failed"
    assert "bytes in" in trouble.what


async def test_an_etag_that_is_weak_or_strange_is_not_used(
    authority: WebAuthority, client: MirrorClient
) -> None:
    for etag in ('W/"1"', "1", '"a" "b"', '"' + "x" * 300 + '"'):
        async with (
            open_server(authority, answering(lambda asked, e=etag: asked.head(LENGTH, etag=e))) as url,  # type: ignore[misc]
            client.ask(url, 0, 10, length=LENGTH) as answer,
        ):
            assert answer.etag == ""


async def test_another_etag_than_the_one_that_is_gone_on_with_is_a_change(
    authority: WebAuthority, client: MirrorClient
) -> None:
    async with open_server(authority, answering(lambda asked: asked.head(LENGTH), bytes(1_000))) as url:
        assert await read(client, url, 0, 1_000, if_range='"1"') == bytes(1_000)
        assert (await refusal(client, url, if_range='"2"')).fault == "changed"


async def test_nobody_listening_is_a_failure(client: MirrorClient) -> None:
    trouble = await refusal(client, f"https://127.0.0.1:{free_port()}/file")
    assert (trouble.fault, trouble.what.startswith("the connection failed")) == ("failed", True)


async def test_a_request_is_cancelled_at_once(authority: WebAuthority, client: MirrorClient) -> None:
    async def answer(stream: trio.abc.Stream, asked: Asked) -> None:
        await stream.send_all(asked.head(LENGTH))
        await trio.sleep_forever()

    async with open_server(authority, answer) as url:
        with trio.move_on_after(0.3) as scope:
            await read(client, url, 0, 100)
        assert scope.cancelled_caught


# Settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "proxy",
    ["h:3128", "socks5://h:1080", "http://h", "http://ann:pw@h:3128", "http://h:99999", "http://h:1/x"],
)
async def test_a_proxy_that_is_none_is_explained_without_its_words(proxy: str) -> None:
    with pytest.raises(UsageError, match="the proxy for mirrors") as caught:
        async with open_client(MirrorSettings(proxy=proxy)):
            pass
    assert "pw" not in str(caught.value)


async def test_a_ca_file_without_certificates_is_explained(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("nothing")
    with pytest.raises(UsageError, match="no certificates"):
        async with open_client(MirrorSettings(ca_file=tmp_path / "ca")):
            pass
