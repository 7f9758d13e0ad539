"""The door for sessions: paths may come before who was announced for them."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest
import trio

from p2pdist import limits
from p2pdist.core.services import ServicePolicy
from p2pdist.errors import TrustError
from p2pdist.node.nat import NatWatch
from p2pdist.node.reception import Reception
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.messages import SessionInvite
from p2pdist.wire.services import Echo

SESSION, OTHER = f"{1:032x}", f"{2:032x}"


def reception() -> Reception:
    return Reception(
        identity=cast(Any, None), policy=ServicePolicy(), diagnose=lambda: {}, nat=NatWatch("127.0.0.1")
    )


def invite(session: str) -> SessionInvite:
    return SessionInvite(
        session=session,
        initiator=IdentityKey.generate().node,
        authority=b"x",
        by="alice",
        expires=int(time.time()) + 60,
        service=Echo(),
    )


async def test_a_path_that_comes_before_its_invitation_waits_for_it(autojump_clock: Any) -> None:
    room = reception()

    async def announce() -> None:
        await trio.sleep(limits.SESSION_INVITE_S / 3)
        room.expect(invite(OTHER))
        await trio.sleep(limits.SESSION_INVITE_S / 3)
        room.expect(invite(SESSION))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(announce)
        with trio.move_on_after(limits.SESSION_INVITE_S):  # the session begins, and nobody serves it here
            await room.carry(SESSION, cast(Any, None))
        assert room._sessions is not None
        assert room._sessions.count == 1


@pytest.mark.parametrize("others", [True, False], ids=["somebody else was", "nobody was"])
async def test_a_path_to_which_nobody_is_invited_is_refused_after_a_while(
    others: bool, autojump_clock: Any
) -> None:
    room = reception()
    if others:
        room.expect(invite(OTHER))
    before = trio.current_time()
    with pytest.raises(TrustError, match="nobody was invited"):
        await room.carry(SESSION, cast(Any, None))
    assert trio.current_time() - before == pytest.approx(limits.SESSION_INVITE_S)
