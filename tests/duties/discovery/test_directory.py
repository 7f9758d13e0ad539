"""Directories: a real slapd with and without TLS, and directories that misbehave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from false_ldap import done, entry, false_directory
from hypothesis import given, settings
from hypothesis import strategies as st
from slapd import COMPUTERS, PASSWORD, SLAPADD, SLAPD, Slapd, certificates, free_port, open_slapd

from p2pdist import limits
from p2pdist.duties.discovery import directory
from p2pdist.duties.discovery.ldapreader import Directory
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable
from p2pdist.wire.discovery import Sighting


async def computers(of: Directory) -> list[Sighting]:
    async with directory.poll(of) as found:
        return [sighting async for sighting in found]


async def until_error(of: Directory) -> tuple[int, P2PDistError]:
    """Return how many computers came before the error, and the error."""
    count = 0
    try:
        async with directory.poll(of) as found:
            async for _ in found:
                count += 1
    except P2PDistError as error:
        return count, error
    pytest.fail(f"no error after {count} computers")


# A real one ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    if SLAPD is None or SLAPADD is None:
        pytest.skip("slapd is not installed")
    with open_slapd(tmp_path_factory.mktemp("slapd")) as opened:
        yield opened


def real(slapd: Slapd, *, tls: str = "ldaps", page: int = 500, ca_file: str = "") -> Directory:
    return Directory(
        host="127.0.0.1",
        port=slapd.tls_port if tls == "ldaps" else slapd.port,
        base="dc=acme",
        tls=tls,  # type: ignore[arg-type]  # a test's own literal
        user="cn=admin,dc=acme",
        password=PASSWORD,
        ca_pem=Path(ca_file or slapd.ca_file).read_bytes(),
        page=page,
    )


@pytest.mark.slow
@pytest.mark.parametrize("tls", ["ldaps", "starttls", "none"])
async def test_all_computers_of_a_real_directory_are_found_with_their_units(slapd: Slapd, tls: str) -> None:
    found = await computers(real(slapd, tls=tls))
    assert {sighting.names[0] for sighting in found} == {f"pc{number}" for number in range(COMPUTERS)}
    assert len({sighting.guid for sighting in found} - {""}) == COMPUTERS
    by_name = {sighting.names[0]: sighting for sighting in found}
    assert (by_name["pc3"].unit, by_name["pc4"].unit) == ("ou=Berlin,dc=acme", "ou=Paris,dc=acme")


@pytest.mark.slow
async def test_a_directory_of_another_authority_is_not_trusted(slapd: Slapd, tmp_path: Path) -> None:
    certificates(tmp_path)
    for tls in ("ldaps", "starttls"):
        with pytest.raises(TrustError, match=r"127\.0\.0\.1"):
            await computers(real(slapd, tls=tls, ca_file=str(tmp_path / "ca.pem")))


@pytest.mark.slow
async def test_a_wrong_password_is_said_and_is_not_in_what_is_said(slapd: Slapd) -> None:
    wrong = Directory(
        host="127.0.0.1",
        port=slapd.port,
        base="dc=acme",
        tls="none",
        user="cn=admin,dc=acme",
        password="guessed wrong",
    )
    with pytest.raises(Unavailable, match="let us in") as caught:
        await computers(wrong)
    assert "guessed" not in str(caught.value) and "guessed" not in repr(wrong)


async def test_a_directory_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        await computers(false(free_port()))


# Ones that misbehave ---------------------------------------------------------------------------------


def false(port: int, *, page: int = 50) -> Directory:
    return Directory(host="127.0.0.1", port=port, base="dc=acme", tls="none", page=page)


async def test_a_directory_that_drops_paging_is_named_after_what_it_has_sent() -> None:
    async def search(stream: trio.SocketStream, number: int) -> None:
        await stream.send_all(b"".join(entry(number, place) for place in range(120)) + done(number))

    async with false_directory(search) as port:
        count, error = await until_error(false(port))
    assert count == 120 and "does not page" in str(error) and isinstance(error, PeerError)


async def test_a_directory_that_never_ends_a_page_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LDAP_PAGE_BYTES_MAX", 256 * limits.KIB)

    async def search(stream: trio.SocketStream, number: int) -> None:
        place = 0
        while True:
            place += 1
            await stream.send_all(entry(number, place, size=4_000))

    async with false_directory(search) as port:
        with trio.fail_after(20):
            count, error = await until_error(false(port))
    assert count == 0 and "too much at once" in str(error) and isinstance(error, PeerError)


async def test_a_directory_that_repeats_its_page_for_ever_is_named() -> None:
    async def search(stream: trio.SocketStream, number: int) -> None:
        entries = b"".join(entry(number, place) for place in range(50))
        await stream.send_all(entries + done(number, cookie=b"again"))

    async with false_directory(search) as port:
        count, error = await until_error(false(port))
    assert count == 50 and "same entries again" in str(error)


async def test_a_directory_whose_pages_never_end_and_are_empty_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def search(stream: trio.SocketStream, number: int) -> None:
        await stream.send_all(done(number, cookie=b"more"))

    async with false_directory(search) as port:
        count, error = await until_error(false(port))
    assert count == 0 and "empty" in str(error)


async def test_what_came_before_a_directory_broke_off_is_kept() -> None:
    pages = iter([True, False])

    async def search(stream: trio.SocketStream, number: int) -> None:
        if not next(pages):
            await stream.aclose()
            return
        await stream.send_all(
            b"".join(entry(number, place) for place in range(50)) + done(number, cookie=b"more")
        )

    async with false_directory(search) as port:
        count, error = await until_error(false(port))
    assert count == 50 and isinstance(error, Unavailable), error


@pytest.mark.parametrize(
    ("code", "words"), [(12, "cannot page"), (4, "its own limit"), (50, "stops after 0 entries")]
)
async def test_why_a_directory_refuses_is_said(code: int, words: str) -> None:
    async def search(stream: trio.SocketStream, number: int) -> None:
        await stream.send_all(done(number, code=code))

    async with false_directory(search) as port:
        count, error = await until_error(false(port))
    assert count == 0 and words in str(error)


async def test_a_poll_of_a_directory_that_hangs_is_cancelled_at_once() -> None:
    asked = trio.Event()

    async def search(stream: trio.SocketStream, number: int) -> None:
        asked.set()
        await trio.sleep_forever()

    async with false_directory(search) as port:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(computers, false(port))
                await asked.wait()
                nursery.cancel_scope.cancel()


async def test_a_directory_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LDAP_PAGE_S", 0.3)

    async def search(stream: trio.SocketStream, number: int) -> None:
        while True:
            for byte in entry(number, 1):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.02)

    async with false_directory(search) as port:
        with trio.fail_after(10):
            count, error = await until_error(false(port))
    assert count == 0 and "smaller pages" in str(error)


PAGE = b"".join(entry(2, place) for place in range(2)) + done(2, cookie=b"more")


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, len(PAGE) - 1), byte=st.integers(0, 255), cut=st.booleans())
async def test_whatever_a_directory_sends_is_entries_or_an_error_of_ours(
    place: int, byte: int, cut: bool
) -> None:
    async def search(stream: trio.SocketStream, number: int) -> None:
        page = b"".join(entry(number, place) for place in range(2)) + done(number, cookie=b"more")
        await stream.send_all(page[:place] if cut else page[:place] + bytes([byte]) + page[place + 1 :])
        await stream.aclose()

    async with false_directory(search) as port:
        with suppress(P2PDistError):
            assert len(await computers(false(port))) <= 2


async def test_what_is_no_ldap_is_unavailable() -> None:
    async def search(stream: trio.SocketStream, number: int) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        await stream.aclose()

    async with false_directory(search) as port:
        with trio.fail_after(20):
            count, _ = await until_error(false(port))
    assert count == 0
