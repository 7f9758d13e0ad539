"""Calling: links with neighbours that dial nobody, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from p2pdist import limits
from p2pdist.core.upstream import Upstream
from p2pdist.errors import TrustError, Unavailable
from p2pdist.net.link import Calls, Link, RequestHandler, RequestTable
from p2pdist.net.tls import TlsIdentity
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.requests import Accepted, CarryOffer, Enrolled, Lapsed, RenewRequest

pytestmark = pytest.mark.slow  # connections that take their time


@dataclass
class Callee:
    """A point that dials nobody: what it answers, and what it was asked."""

    better: int = 0
    """So many offers are refused, because somebody better carries it."""
    asked: list[str] = field(default_factory=list)
    certificate: bytes = b""

    @property
    def requests(self) -> RequestTable:
        return {
            "/carry": RequestHandler(CarryOffer, self._carry),
            "/lapsed": RequestHandler(Lapsed, self._lapsed),
            "/certificate": RequestHandler(Enrolled, self._certificate),
        }

    async def _carry(self, link: Link, offer: CarryOffer) -> Accepted:
        self.asked.append("carry")
        if len(self.asked) <= self.better:
            raise Unavailable("somebody carries this node")
        return Accepted()

    async def _lapsed(self, link: Link, lapsed: Lapsed) -> RenewRequest:
        self.asked.append("lapsed")
        assert link.local_host
        return RenewRequest(envelope=envelope(self.node))

    async def _certificate(self, link: Link, enrolled: Enrolled) -> Accepted:
        self.certificate = enrolled.certificate
        return Accepted()

    node: str = ""


def envelope(sender: str) -> Envelope:
    return Envelope(sender=sender, recipient=sender, counter=1, expires=1, box=b"b" * 64)


class Caller:
    """Calls, and what came of them."""

    def __init__(self, identity: TlsIdentity) -> None:
        self.linked, self._linked = trio.open_memory_channel[Link](10)
        self.carried = False
        self.refusal: Exception | None = None
        self.calls = Calls(
            identity=lambda: identity,
            requests={},
            on_link=self._have,
            carried=lambda node: self.carried,
            renew=self._renew,
            spread=0.0,
        )

    async def next_link(self) -> Link:
        with trio.fail_after(20):
            return await self._linked.receive()

    async def _have(self, link: Link) -> None:
        self.linked.send_nowait(link)
        if self.refusal is not None:
            raise self.refusal
        await link.wait_ended()

    async def _renew(self, link: Link, request: RenewRequest) -> Enrolled:
        return Enrolled(certificate=b"new", node=request.envelope.sender, group="/a")


@asynccontextmanager
async def calling(
    serving: Any, fleet: Any, callee: Callee, *, identity: TlsIdentity | None = None
) -> AsyncIterator[tuple[Caller, Any]]:
    caller = Caller(fleet.identity())
    shown = {"identity": identity} if identity is not None else {}

    async def stay(link: Link) -> None:
        await link.wait_ended()

    async with serving(on_link=stay, requests=callee.requests, **shown) as server, trio.open_nursery() as all:
        callee.node = server.node
        caller.calls.set([Upstream(node=server.node, host=server.host, port=server.port, kind="point")])
        all.start_soon(caller.calls.run)
        yield caller, server
        all.cancel_scope.cancel()


async def test_a_neighbour_that_takes_the_offer_is_linked_and_again_after_its_link_was_cut(
    serving: Any, fleet: Any
) -> None:
    async with calling(serving, fleet, Callee()) as (caller, server):
        link = await caller.next_link()
        assert caller.calls.calls()[server.node].state == "linked"
        link.abort("for the test")
        assert await caller.next_link() is not link


async def test_while_somebody_better_carries_it_the_offer_is_repeated_on_the_same_link(
    serving: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CALL_RESERVE_S", 0.05)
    callee = Callee(better=3)
    async with calling(serving, fleet, callee) as (caller, server):
        await caller.next_link()
        assert callee.asked == ["carry"] * 4
        assert len(server.links) == 1


async def test_who_is_carried_already_is_not_dialled(serving: Any, fleet: Any) -> None:
    callee = Callee()
    async with calling(serving, fleet, callee) as (caller, server):
        caller.carried = True
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert caller.calls.calls()[server.node].state == "carried by another"
        assert callee.asked == []


async def test_who_is_not_called_any_more_loses_its_link(serving: Any, fleet: Any) -> None:
    async with calling(serving, fleet, Callee()) as (caller, _):
        link = await caller.next_link()
        caller.calls.set([])
        with trio.fail_after(20):
            await link.wait_ended()
        assert caller.calls.calls() == {}


async def test_a_neighbour_that_cannot_be_reached_is_named_with_the_next_step(fleet: Any) -> None:
    caller, node = Caller(fleet.identity()), IdentityKey.generate().node
    caller.calls.set([Upstream(node=node, host="127.0.0.1", port=1, kind="point")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.calls.run)
        with trio.fail_after(20):
            while (call := caller.calls.calls().get(node)) is None or call.state != "failed":
                await trio.sleep(0.01)
        assert "cannot be reached" in call.reason
        assert call.hint == "check the address and the network"
        nursery.cancel_scope.cancel()


async def test_somebody_else_at_the_address_gets_no_link(serving: Any, fleet: Any) -> None:
    caller, node = Caller(fleet.identity()), IdentityKey.generate().node
    async with serving(requests=Callee().requests) as server, trio.open_nursery() as nursery:
        caller.calls.set([Upstream(node=node, host=server.host, port=server.port, kind="point")])
        nursery.start_soon(caller.calls.run)
        with trio.fail_after(20):
            while (call := caller.calls.calls().get(node)) is None or call.state != "failed":
                await trio.sleep(0.01)
        assert f"where {node} was expected" in call.reason
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("refusal", [TrustError("it was revoked"), ValueError("a defect")], ids=repr)
async def test_what_goes_wrong_on_one_link_ends_it_and_nothing_else(
    serving: Any, fleet: Any, refusal: Exception
) -> None:
    async with calling(serving, fleet, Callee()) as (caller, server):
        caller.refusal = refusal
        await caller.next_link()
        with trio.fail_after(20):
            while caller.calls.calls()[server.node].state != "failed":
                await trio.sleep(0.01)
        caller.refusal = None
        await caller.next_link()


async def test_a_certificate_that_ran_out_is_replaced_and_nothing_else_is_done_with_its_holder(
    serving: Any, fleet: Any
) -> None:
    callee = Callee()
    expired = fleet.identity(now=datetime.now(UTC) - timedelta(days=1))
    async with calling(serving, fleet, callee, identity=expired):
        with trio.fail_after(20):
            while not callee.certificate:
                await trio.sleep(0.01)
        assert callee.certificate == b"new"
        assert "carry" not in callee.asked


async def test_an_expired_certificate_of_another_fleet_opens_nothing(serving: Any, fleet: Any) -> None:
    callee = Callee()
    stranger = type(fleet)().identity(now=datetime.now(UTC) - timedelta(days=1))
    async with calling(serving, fleet, callee, identity=stranger) as (caller, server):
        with trio.fail_after(20):
            while caller.calls.calls().get(server.node) is None or (
                caller.calls.calls()[server.node].state != "failed"
            ):
                await trio.sleep(0.01)
        assert callee.asked == []
