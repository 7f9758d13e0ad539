"""What is sealed for a run: for one node, one piece of work, and an hour."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import TrustError, UsageError
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.sealing import seal_anonymous
from p2pdist.trust.secrets import open_secrets, seal_secrets

KEY, OTHER = IdentityKey(b"\1" * 32), IdentityKey(b"\2" * 32)
WORK, NOW = b"what is to be done", 1_800_000_000


class Login(msgspec.Struct, frozen=True, kw_only=True):
    password: str


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    pin: int


def sealed(secret: str = "hunter2") -> bytes:  # noqa: S107
    return seal_secrets(Login(password=secret), work=WORK, public=KEY.public, expires=NOW + 60)


def opened(box: bytes, *, key: IdentityKey = KEY, work: bytes = WORK, now: int = NOW) -> Login:
    return open_secrets(box, Login, work=work, key=key, now=now)


def test_the_node_opens_what_was_sealed_for_it_and_its_work() -> None:
    assert opened(sealed()) == Login(password="hunter2")


def test_what_was_sealed_does_not_show() -> None:
    assert b"hunter2" not in sealed()


def test_another_node_does_not_open_it() -> None:
    with pytest.raises(TrustError, match="another key"):
        opened(sealed(), key=OTHER)


def test_it_is_of_no_use_for_other_work() -> None:
    with pytest.raises(TrustError, match="other work"):
        opened(sealed(), work=b"log in somewhere else")


def test_it_is_refused_once_it_has_expired() -> None:
    with pytest.raises(TrustError, match="too late"):
        opened(sealed(), now=NOW + 60 + limits.CLOCK_SKEW_S + 1)


def test_another_structure_is_refused_without_a_word_of_what_is_in_it() -> None:
    with pytest.raises(TrustError) as caught:
        open_secrets(sealed(), Pin, work=WORK, key=KEY, now=NOW)
    assert "hunter2" not in str(caught.value)


def test_secrets_that_are_too_large_are_refused_before_they_are_sealed() -> None:
    with pytest.raises(UsageError, match="exceeds"):
        sealed("x" * limits.SECRETS_BYTES_MAX)


@settings(max_examples=50)
@given(st.binary(max_size=200), st.booleans())
def test_whatever_is_in_a_box_it_opens_or_is_refused(data: bytes, in_a_box: bool) -> None:
    with pytest.raises(TrustError):
        opened(seal_anonymous(data, KEY.public) if in_a_box else data)
