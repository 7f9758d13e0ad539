"""Runs one method of discovery and prints its sightings as JSON: poll_program.py METHOD ARGUMENTS."""

from __future__ import annotations

import importlib
import ipaddress
import json
import sys
from typing import Any

import msgspec
import trio

from p2pdist.wire.discovery import Sighting


async def found(method: str, arguments: dict[str, Any]) -> list[Sighting]:
    module = importlib.import_module(f"p2pdist.duties.discovery.{method}")
    ranges = arguments.pop("ranges", None)
    positional = []
    if ranges is not None:
        positional.append([a for each in ranges for a in ipaddress.ip_network(each).hosts()])
    async with module.poll(*positional, **arguments) as sightings:
        return [sighting async for sighting in sightings]


method, arguments = sys.argv[1:]
sys.stdout.write(msgspec.json.encode(trio.run(found, method, json.loads(arguments))).decode())
