"""The inventory, at the command line and through the API."""

from __future__ import annotations

import pytest
from serverkit import enrolled_device

from p2pdist.store import inventory
from p2pdist.wire import api as wire
from p2pdist.wire.discovery import Sighting

from .conftest import OpenShell

pytestmark = pytest.mark.slow  # a whole server

MAC = "00:1b:21:00:00:07"


async def test_discovered_devices_are_listed_shown_placed_and_forgotten(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        store = shell.fleet.service.store
        assert "nothing was discovered" in await shell("inventory", "list")
        await store.write(
            inventory.record_sightings,
            [
                Sighting(method="neighbours", addresses=["10.1.0.7"], macs=[MAC]),
                Sighting(
                    method="mdns", addresses=["10.1.0.7"], names=["par-7.local"], services=["_ssh._tcp"]
                ),
            ],
            network="a" * 32,
            now=1_800_000_000,
        )
        await shell("group", "add", "/emea/paris")
        said = await shell("inventory", "rule", "add", "name", "par-*", "/emea/paris")
        assert "belongs into /emea/paris" in said
        listed = await shell("inventory", "list")
        for word in ("par-7.local", "unmanaged", "10.1.0.7", MAC, "/emea/paris"):
            assert word in listed
        answer = await shell.json(wire.FoundList, "inventory", "list", "--network", "a" * 32)
        (device,) = answer.devices
        shown = await shell("inventory", "show", device.id[:8])
        assert "10.1.0.7 in aaaaaaaaaaaa" in shown and "_ssh._tcp" in shown
        rules = await shell.json(wire.RuleList, "inventory", "rule", "list")
        await shell("inventory", "rule", "remove", str(rules.rules[0].number))
        assert (await shell.json(wire.FoundInfo, "inventory", "show", device.id)).group == ""
        assert "comes back" in await shell("inventory", "forget", device.id)
        await shell("inventory", "show", device.id, code=2)
        assert "p2pdist inventory list" in shell.stderr
        assert {"inventory.forget", "inventory.rule.add"} <= {
            entry.action for entry in (await shell.json(wire.AuditList, "audit")).entries
        }


async def test_a_managed_device_is_shown_as_one_with_its_group(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        device = await enrolled_device(shell.fleet, name="desk-7")
        sighting = Sighting(method="reverse", addresses=["10.1.0.7"], names=["desk-7.corp.example"])
        await shell.fleet.service.store.write(
            inventory.record_sightings, [sighting], network="a" * 32, now=1_800_000_000
        )
        (found,) = (await shell.json(wire.FoundList, "inventory", "list")).devices
        assert (found.node, found.group, found.name) == (device.key.node, "/", "desk-7")
        assert found.state in ("online", "offline")
        assert found.addresses[0].address == "10.1.0.7"


async def test_conflicts_are_shown_with_who_claims_what(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        await shell.fleet.service.store.write(
            inventory.record_sightings,
            [
                Sighting(method="neighbours", addresses=["10.1.0.7"], macs=[MAC]),
                Sighting(method="neighbours", addresses=["10.1.0.8"], macs=[MAC]),
                Sighting(method="mdns", addresses=["10.1.0.7"], names=["one.local"]),
                Sighting(method="mdns", addresses=["10.1.0.8"], names=["two.local"]),
            ],
            network="a" * 32,
            now=1_800_000_000,
        )
        said = await shell("inventory", "conflicts")
        for word in ("mac", MAC, "everywhere", "one.local (", "two.local ("):
            assert word in said


async def test_a_rule_that_makes_no_sense_is_refused(open_shell: OpenShell) -> None:
    async with open_shell() as shell:
        await shell("inventory", "rule", "add", "range", "10.1.0.7/8", "/", code=2)
        assert "10.1.0.0/16" in shell.stderr
        await shell("inventory", "rule", "remove", "7", code=2)
        assert "rule list" in shell.stderr
