"""Sealed messages between a node and the admin server."""

from __future__ import annotations

from pathlib import Path

import msgpack
import nacl.utils
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import P2PDistError, TrustError, UsageError
from p2pdist.node.mail import Counter, Mail
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.sealing import open_envelope, seal
from p2pdist.wire import codec
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.messages import Received, RenewalRequest
from tests.node.nodes import Nodes

NOW = 1_800_000_000


async def test_counters_grow_and_never_repeat_after_a_crash(tmp_path: Path) -> None:
    before = [await counter.take() for counter in [Counter(tmp_path / "c")] for _ in range(3)]
    after = [await counter.take() for counter in [Counter(tmp_path / "c")] for _ in range(3)]
    assert before == sorted(set(before))
    assert min(after) > max(before)


async def test_a_damaged_counter_is_refused_instead_of_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"garbage")
    with pytest.raises(UsageError, match="damaged"):
        Counter(tmp_path / "c")


@given(st.one_of(st.binary(max_size=40), st.from_regex(rb"[-+ _]?[0-9]{1,30}\n?", fullmatch=True)))
def test_whatever_is_in_the_counters_file_is_refused_or_goes_on_with_numbers_that_envelopes_take(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-counter"
    path.write_bytes(text)
    try:
        counter = Counter(path)
    except P2PDistError as error:
        assert str(path) in str(error)
        return
    assert int(text) < trio.run(counter.take) < 2**63


async def test_what_a_node_seals_only_the_admin_server_opens(nodes: Nodes, tmp_path: Path) -> None:
    home = nodes.home(tmp_path)
    envelope = await Mail(home).seal(RenewalRequest(request=b"pem"), now=NOW)
    data = open_envelope(envelope, key=nodes.server, sender_public=home.key.public, now=NOW)
    assert codec.decode(data, RenewalRequest) == RenewalRequest(request=b"pem")
    with pytest.raises(TrustError):
        open_envelope(envelope, key=IdentityKey.generate(), sender_public=home.key.public, now=NOW)


def sealed(
    nodes: Nodes,
    recipient: IdentityKey,
    counter: int,
    sender: IdentityKey | None = None,
    data: bytes | None = None,
) -> Envelope:
    return seal(
        codec.encode(Received(ids=["a"])) if data is None else data,
        key=sender or nodes.server,
        recipient_public=recipient.public,
        counter=counter,
        expires=NOW + 60,
        nonce=nacl.utils.random(24),
    )


async def test_an_envelope_that_was_dealt_with_is_not_opened_again_not_even_after_a_restart(
    nodes: Nodes, tmp_path: Path
) -> None:
    home = nodes.home(tmp_path)
    mail, envelope = Mail(home), sealed(nodes, home.key, 7)
    assert mail.open(envelope, now=NOW) == Received(ids=["a"])
    await mail.dealt_with(envelope)
    assert mail.open(envelope, now=NOW) is None
    assert Mail(home).open(envelope, now=NOW) is None


async def test_an_envelope_that_was_opened_and_not_dealt_with_is_opened_again(
    nodes: Nodes, tmp_path: Path
) -> None:
    home = nodes.home(tmp_path)
    mail, envelope = Mail(home), sealed(nodes, home.key, 7)
    mail.open(envelope, now=NOW)
    assert not mail.opened().has(7)
    assert mail.open(envelope, now=NOW) == Received(ids=["a"])


async def test_a_message_of_a_newer_server_that_is_not_known_here_counts_as_dealt_with(
    nodes: Nodes, tmp_path: Path
) -> None:
    home = nodes.home(tmp_path)
    mail = Mail(home)
    unknown = sealed(nodes, home.key, 7, data=msgpack.packb({"message": "of-next-year", "what": 1}))
    assert await mail.take(unknown, now=NOW) is None
    assert mail.opened().has(7)
    assert await mail.take(sealed(nodes, home.key, 8), now=NOW) == Received(ids=["a"])


async def test_a_forged_envelope_does_not_count_as_dealt_with(nodes: Nodes, tmp_path: Path) -> None:
    home = nodes.home(tmp_path)
    mail = Mail(home)
    with pytest.raises(TrustError):
        await mail.take(sealed(nodes, home.key, 7, sender=IdentityKey.generate()), now=NOW)
    assert not mail.opened().has(7)


async def test_a_node_says_which_envelopes_it_has_dealt_with_also_after_a_restart(
    nodes: Nodes, tmp_path: Path
) -> None:
    home = nodes.home(tmp_path)
    mail = Mail(home)
    for counter in (3, 9, 7):
        await mail.dealt_with(sealed(nodes, home.key, counter))
    for told in (mail.opened(), Mail(home).opened()):
        assert [counter for counter in range(1, 12) if told.has(counter)] == [3, 7, 9]


async def test_a_damaged_record_of_what_was_opened_costs_work_and_nothing_else(
    nodes: Nodes, tmp_path: Path
) -> None:
    home = nodes.home(tmp_path)
    envelope = sealed(nodes, home.key, 7)
    await Mail(home).dealt_with(envelope)
    (home.state / "envelopes-opened").write_bytes(b"\xc1 damaged")
    assert Mail(home).open(envelope, now=NOW) == Received(ids=["a"])


def test_an_envelope_from_anybody_but_the_admin_server_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    home = nodes.home(tmp_path)
    with pytest.raises(TrustError):
        Mail(home).open(sealed(nodes, home.key, 7, sender=IdentityKey.generate()), now=NOW)


def test_a_late_envelope_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    home = nodes.home(tmp_path)
    with pytest.raises(TrustError):
        Mail(home).open(sealed(nodes, home.key, 7), now=NOW + 3600)
