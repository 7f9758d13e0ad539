"""Whatever crashes, moves, breaks or lies: what was accepted arrives, once, and nothing goes back in time."""

from __future__ import annotations

import pytest

from tests.simulation.mail import DEVICES, LIAR, World

MINUTES = 60.0
SEEDS = range(12)


def torment(world: World, until: float) -> None:
    """Let things happen at random until then; the fleet works meanwhile."""
    rng, number = world.rng, 0
    while world.now < until:
        world.run_until(world.now + rng.uniform(0.05, 3.0))
        number += 1
        device = world.devices[rng.choice(DEVICES)]
        device.say(f"{device.node[0]}{number}")
        if world.server.up:
            world.server.invite(rng.choice(DEVICES), number)
            if rng.random() < 0.3:
                world.server.order(rng.choice(DEVICES))
        happening = rng.random()
        if happening < 0.15 and device.up:
            device.move()
        elif happening < 0.25 and world.links:
            rng.choice(world.links).end()
        elif happening < 0.32 and world.links:
            rng.choice(world.links).cut_off()
        elif happening < 0.40:
            program = rng.choice(world.programs[rng.choice([0, 1, 1]) :])  # the server less often
            if program.up:
                program.crash()
                world.later(rng.uniform(0.5, 90), program.start)


def rest(world: World) -> None:
    """Everything works again; the liar too, or devices that are behind it would have to leave it first."""
    world.gateways[LIAR].honest = True  # type: ignore[attr-defined]  # it is the liar
    world.run_until(world.now + 100)
    assert all(program.up for program in world.programs)
    world.run_until(world.now + 15 * MINUTES)


def tormented(seed: int) -> World:
    world = World(seed)
    world.run_until(20)
    torment(world, 10 * MINUTES)
    rest(world)
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_that_was_accepted_arrives_once_and_nothing_goes_back_in_time(seed: int) -> None:
    world = tormented(seed)
    for device in world.devices.values():
        lost = set(device.said) - set(world.server.stored)
        assert not lost, f"said by {device.node[0]} and not stored"
        missed = set(world.server.accepted[device.node]) - set(device.invited)
        assert not missed, f"sent to {device.node[0]} and not opened"
        assert len(device.invited) == len(set(device.invited)), "opened twice"
        assert device.revisions == sorted(device.revisions), "back in time"
        assert device.revision == world.server.wanted[device.node], "the newest state"
        assert not device.unconfirmed.messages(), "everything is confirmed"
    assert world.server.outbox.size_bytes == 0, "nothing is kept for ever"
    assert sum(len(device.said) for device in world.devices.values()) > 100, "it was put to the test"
