"""Several addresses of one neighbour: which is dialled when, and which is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable
from p2pdist.limits import DIAL_STAGGER_S
from p2pdist.net.link import open_link
from p2pdist.net.racing import first_to_answer

NEVER = float("inf")


@dataclass
class Addresses:
    """Addresses that answer or fail after a time, on a clock that jumps."""

    fates: dict[str, tuple[float, P2PDistError | None]]
    dialled: dict[str, float] = field(default_factory=dict)
    given_up: list[str] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    began: float = field(default_factory=trio.current_time)

    async def dial(self, host: str, port: int) -> str:
        self.dialled[host] = round(trio.current_time() - self.began, 6)
        after, error = self.fates[host]
        try:
            await trio.sleep(after)
        except trio.Cancelled:
            self.given_up.append(host)
            raise
        if error is not None:
            raise error
        return host

    async def race(self) -> str:
        return await first_to_answer([(host, 7601) for host in self.fates], self.dial, self.discarded.append)


async def test_an_address_that_answers_at_once_is_the_only_one_dialled(autojump_clock: Any) -> None:
    addresses = Addresses({"first": (0.01, None), "second": (0.01, None)})
    assert await addresses.race() == "first"
    assert addresses.dialled == {"first": 0}


async def test_the_next_is_dialled_beside_one_that_is_slow(autojump_clock: Any) -> None:
    addresses = Addresses({"silent": (NEVER, None), "slow": (NEVER, None), "good": (0.1, None)})
    assert await addresses.race() == "good"
    assert addresses.dialled == {"silent": 0, "slow": DIAL_STAGGER_S, "good": 2 * DIAL_STAGGER_S}
    assert sorted(addresses.given_up) == ["silent", "slow"]


async def test_the_next_is_dialled_at_once_when_one_has_failed(autojump_clock: Any) -> None:
    addresses = Addresses({"closed": (0.02, Unavailable("refused")), "good": (0, None)})
    assert await addresses.race() == "good"
    assert addresses.dialled == {"closed": 0, "good": 0.02}


async def test_the_first_may_still_answer_when_others_are_dialled(autojump_clock: Any) -> None:
    addresses = Addresses({"far": (0.4, None), "silent": (NEVER, None)})
    assert await addresses.race() == "far"
    assert addresses.given_up == ["silent"]


async def test_of_two_that_answer_at_the_same_moment_one_is_closed(autojump_clock: Any) -> None:
    addresses = Addresses({"left": (2 * DIAL_STAGGER_S, None), "right": (DIAL_STAGGER_S, None)})
    taken = await addresses.race()
    assert {taken, *addresses.discarded, *addresses.given_up} == {"left", "right"}
    assert taken not in addresses.discarded


async def test_one_that_is_somebody_else_does_not_win(autojump_clock: Any) -> None:
    wrong = TrustError("somebody else answers at 192.168.1.10")
    addresses = Addresses({"private": (0.01, wrong), "public": (0.5, None)})
    assert await addresses.race() == "public"


REFUSED, WRONG, OTHER = Unavailable("refused"), TrustError("wrong certificate"), PeerError("not ours")


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([WRONG], TrustError),
        ([WRONG, WRONG], TrustError),
        ([OTHER, OTHER], PeerError),
        ([WRONG, REFUSED], Unavailable),
        ([WRONG, OTHER], Unavailable),
    ],
)
async def test_when_none_answers_as_it_should_one_error_says_why(
    errors: list[P2PDistError], kind: type[P2PDistError], autojump_clock: Any
) -> None:
    addresses = Addresses({str(number): (0.01, error) for number, error in enumerate(errors)})
    with pytest.raises(P2PDistError) as raised:
        await addresses.race()
    assert type(raised.value) is kind
    assert all(error.what in raised.value.what for error in errors)


async def test_a_cancelled_race_leaves_nothing_behind(autojump_clock: Any) -> None:
    addresses = Addresses({"silent": (NEVER, None), "slow": (NEVER, None)})
    with trio.move_on_after(1) as scope:
        await addresses.race()
    assert scope.cancelled_caught
    assert sorted(addresses.given_up) == ["silent", "slow"]


Serving = Callable[..., Any]


@pytest.fixture
async def silent_port() -> Any:
    """A port of loopback where connections are taken, and nothing is ever said."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    yield listener.socket.getsockname()[1]
    await listener.aclose()


async def test_a_link_comes_about_over_the_other_family_where_the_first_address_is_dead(
    serving: Serving, fleet: Any, silent_port: int
) -> None:
    async with serving(host="*") as server:
        with trio.fail_after(5):
            async with open_link(
                "127.0.0.1",
                silent_port,
                identity=fleet.identity(),
                expect=server.node,
                others=[("::1", server.port)],
            ) as link:
                assert link.remote_host == "::1"


async def test_the_expected_neighbour_is_found_behind_an_address_where_another_one_answers(
    serving: Serving, fleet: Any
) -> None:
    async with (
        serving() as stranger,
        serving(host="::1") as server,
        open_link(
            stranger.host,
            stranger.port,
            identity=fleet.identity(),
            expect=server.node,
            others=[(server.host, server.port)],
        ) as link,
    ):
        assert link.remote is not None
        assert link.remote.node == server.node


async def test_who_listens_everywhere_has_the_same_port_in_both_families(
    serving: Serving, fleet: Any
) -> None:
    async with serving(host="*") as server:
        for host in ("127.0.0.1", "::1"):
            async with open_link(host, server.port, identity=fleet.identity(), expect=server.node) as link:
                assert link.remote_host == host
