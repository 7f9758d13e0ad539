"""How fast a node may send and receive: its own file, its group and its grant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from tuf.api.metadata import Metadata, Root

from p2pdist.config import load_config
from p2pdist.errors import UsageError
from p2pdist.node.config import AgentConfig, SeedConfig
from p2pdist.node.home import save_desired
from p2pdist.node.member import open_member
from p2pdist.node.post import OwnPost
from p2pdist.node.settings import MemberSettings
from p2pdist.swarm.session import Swarm
from p2pdist.wire.messages import DesiredState, RateLimits
from tests.node.nodes import Nodes

SEEDS = Path(__file__).parents[2] / "seeds"
DESIRED = DesiredState(
    revision=3, group="/emea", swarms=[], deployments=[], rates=RateLimits(wan_up=50, site_up=5)
)


class NoHooks:
    """A program that has nothing installed, and does nothing."""

    def installed(self) -> dict[str, int]:
        return {}

    def __getattr__(self, name: str) -> Any:
        async def nothing(*arguments: object) -> None:
            return

        return nothing


async def limits_of(directory: Path, own: RateLimits, monkeypatch: pytest.MonkeyPatch) -> RateLimits:
    """Run a member until it has set its first limits."""
    home = Nodes(root=Metadata(Root()).to_bytes()).home(directory)
    save_desired(home, DESIRED)
    given: list[RateLimits] = []
    rung = trio.Event()

    def set_rates(swarm: Swarm, rates: RateLimits) -> None:
        given.append(rates)
        rung.set()

    settings = MemberSettings(
        role="device", name="pc", link_host=None, swarm_host="127.0.0.1", swarm_port=0, rates=own
    )
    with trio.fail_after(20):
        async with (
            open_member(home, settings, NoHooks(), OwnPost()) as member,
            trio.open_nursery() as nursery,
        ):
            monkeypatch.setattr(Swarm, "set_rates", set_rates)
            nursery.start_soon(member.run)
            await rung.wait()
            nursery.cancel_scope.cancel()
    return given[-1]


async def test_of_a_nodes_own_limits_and_its_groups_the_lowest_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = RateLimits(wan_up=70, wan_down=7, windows=["00:00-24:00 site=4"])
    limits = await limits_of(tmp_path, own, monkeypatch)
    assert limits == RateLimits(site_up=4, site_down=4, wan_up=50, wan_down=7)


@pytest.mark.parametrize("kind", [AgentConfig, SeedConfig])
def test_a_nodes_file_has_a_table_for_its_own_limits(tmp_path: Path, kind: type[AgentConfig]) -> None:
    path = tmp_path / "node.toml"
    path.write_text('[rates]\nwan_down = 9\nwindows = ["08:00-18:00 wan=50 site=60"]\n')
    limits = load_config(path, kind, {"P2PDIST_RATES_SITE_UP": "3"}).rates.limits()
    assert limits == RateLimits(wan_down=9, site_up=3, windows=["08:00-18:00 wan=50 site=60"])
    path.write_text("[rates]\nlan = 9\n")
    with pytest.raises(UsageError, match=r"unknown key rates\.lan"):
        load_config(path, kind, {})


def test_the_table_is_the_limits_that_cross_the_wire() -> None:
    table = {field.name for field in msgspec.structs.fields(type(AgentConfig().rates))}
    assert table == {field.name for field in msgspec.structs.fields(RateLimits)}


@pytest.mark.parametrize("name", ["agent.toml", "points/branch.toml", "points/dedicated.toml"])
def test_the_examples_are_what_the_programs_read_with_what_is_commented_out_too(
    tmp_path: Path, name: str
) -> None:
    text = (SEEDS / name).read_text()
    path = tmp_path / "example.toml"
    path.write_text(re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE))
    limits = load_config(path, AgentConfig if name == "agent.toml" else SeedConfig, {}).rates.limits()
    assert bool(limits.windows) == (name != "agent.toml")
