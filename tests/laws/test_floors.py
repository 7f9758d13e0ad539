"""The law of the house: who may import whom, and why not."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from house_source import Module, house

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"", "errors", "ids", "limits", "omitted"}),
    frozenset({"files", "sqlitefile"}),
    frozenset({"documents"}),
    frozenset({"config", "logs", "programs"}),
    frozenset({"wire"}),
    frozenset({"trust"}),
    frozenset({"core"}),
    frozenset({"net", "swarm", "store", "install"}),
    frozenset({"node"}),
    frozenset({"duties"}),
    frozenset({"server", "seed", "agent", "sign", "cli"}),
)
"""From the ground up. A room imports from floors below its own and from nowhere else, so that a change
can only be felt above; rooms of one floor are neighbours, and strangers to each other."""

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("ids", "errors"): "a parser raises",
    ("ids", "limits"): "a parser measures",
    ("seed", "agent"): "a seed node is an agent with duties: it installs its own software too",
}

SANS_IO = frozenset({"wire", "trust", "core"})

_CLOCK = "time comes in as an argument, so that a test or a simulation can say what time it is"
_NETWORK = "decisions and trust are reached without a network, so that they can be tested without one"
_WAITING = "it neither waits nor runs anything: one driver above it does"

FORBIDDEN_IN_SANS_IO: dict[str, str] = {
    "trio": _WAITING,
    "asyncio": _WAITING,
    "subprocess": _WAITING,
    "socket": _NETWORK,
    "ssl": _NETWORK,
    "select": _NETWORK,
    "selectors": _NETWORK,
    "http": _NETWORK,
    "urllib.request": _NETWORK,
    "httpx": _NETWORK,
    "h2": _NETWORK,
    "libtorrent": _NETWORK,
    "sqlalchemy": "what is stored is the store's business, and arrives here as values",
    "sqlite3": "what is stored is the store's business, and arrives here as values",
    "time": _CLOCK,
    "random": "a source of randomness comes in as an argument, so that a seed repeats a run",
}

ONLY_IN: dict[str, tuple[frozenset[str], str]] = {
    "libtorrent": (frozenset({"swarm"}), "one place touches it, so that one place knows its surprises"),
    "structlog": (frozenset({"logs"}), "importing it as logs.py does keeps 6 MB off every endpoint"),
    "cronsim": (frozenset({"core"}), "when something is due is decided in one place"),
    "h2": (frozenset({"net"}), "how links multiplex is the business of links"),
    "ssl": (frozenset({"net", "server", "cli", "node"}), "contexts are made in one place, TLS 1.3 only"),
    "sqlalchemy": (frozenset({"store", "server"}), "only the admin server has a database of its fleet"),
    "alembic": (frozenset({"store"}), "the store keeps its own schema up to date"),
    "starlette": (frozenset({"server"}), "only the admin server has an HTTP API"),
    "anycorn": (frozenset({"server"}), "only the admin server has an HTTP API"),
    "httpx": (frozenset({"cli", "duties"}), "nodes speak through links; HTTP is for operators and mirrors"),
    "tuf": (frozenset({"trust", "sign", "server"}), "metadata is verified in one place by the stock client"),
    "securesystemslib": (frozenset({"trust", "sign", "server"}), "signing is the business of trust"),
    "aiortc": (frozenset({"net"}), "it costs 25 MB and an asyncio island: one adapter, imported when needed"),
    "aioice": (frozenset({"net"}), "what it lets strangers do is taken out in one adapter"),
    "asyncio": (frozenset({"net", "duties"}), "one island behind one adapter, and programs of their own"),
    "asyncssh": (frozenset({"duties"}), "logging in is the business of initial deployment's worker"),
    "rich": (frozenset({"cli", "sign"}), "services write logs; only programs with a person before them draw"),
    "cyclopts": (frozenset({"cli", "sign", "server", "seed", "agent", "node"}), "command lines are programs"),
    "zstandard": (frozenset({"install"}), "archives are packed and unpacked in one place, bounded"),
    "tarfile": (frozenset({"install"}), "archives are packed and unpacked in one place, bounded"),
    "dns": (frozenset({"duties"}), "names are asked for by discovery, and by nothing else"),
    "ldap3": (frozenset({"duties"}), "it is synchronous, and no longer kept: one adapter, in a thread"),
    "pysequoia": (frozenset({"duties"}), "a vendor's signatures are checked by one adapter"),
    "pickle": (frozenset(), "unpickling outside data runs it"),
    "matplotlib": (frozenset(), "plots are the benchmark's, not the product's"),
}

ENDPOINT_FORBIDDEN = {
    "sqlalchemy": "the fleet's database is the server's",
    "alembic": "the fleet's database is the server's",
    "psycopg": "the fleet's database is the server's",
    "starlette": "the HTTP API is the server's",
    "anycorn": "the HTTP API is the server's",
    "httpx": "6 MB, imported only when a mirror is read",
    "cronsim": "schedules are the server's",
    "aiortc": "25 MB, imported only when a session needs it",
    "aioice": "imported only when a session needs it",
    "av": "18 MB that no data channel needs",
    "matplotlib": "the benchmark's",
    "rich": "4 MB for coloured text that a service does not print",
    "cyclopts": "2 MB for a command line that has been read",
    "asyncio": "1.5 MB, imported only when a session needs it",
    "asyncssh": "31 MB, of a program that ends with the deployment that it is for",
    "difflib": "suggestions are for mistakes",
    "dns": "imported only when a network is polled",
    "ldap3": "imported only when a directory is polled",
    "pysequoia": "imported only when a vendor's repository is followed",
    "pickle": "unpickling outside data runs it",
}


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def matches(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def room_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def offences(module: Module) -> list[str]:
    """Say what *module* imports from its own floor or from above."""
    known = {room for rooms in FLOORS for room in rooms}
    found = set()
    for name in module.imports:
        target = room_of(name)
        if not matches(name, "p2pdist") or target not in known or target in {module.room, ""}:
            continue
        if (module.room, target) not in EXCEPTIONS and floor_of(target) >= floor_of(module.room):
            found.add(f"{module.path} imports {target}: a floor imports only floors below it")
    return sorted(found)


def test_every_room_has_a_floor() -> None:
    known = {room for rooms in FLOORS for room in rooms}
    assert {module.room for module in house()} <= known


def test_a_floor_imports_only_floors_below_it() -> None:
    found = [offence for module in house() for offence in offences(module)]
    assert not found, "\n".join(found)


def test_wire_trust_and_core_do_no_input_or_output() -> None:
    found = [
        f"{module.path} imports {name}: {reason}"
        for module in house()
        if module.room in SANS_IO
        for name in module.imports
        for prefix, reason in FORBIDDEN_IN_SANS_IO.items()
        if matches(name, prefix)
    ]
    assert not found, "\n".join(found)


def test_wire_trust_and_core_do_not_ask_the_wall_clock() -> None:
    found = [
        f"{module.path}:{node.lineno} asks the wall clock: {_CLOCK}"
        for module in house()
        if module.room in SANS_IO
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"now", "utcnow", "today"}
        and ast.unparse(node.func.value).split(".")[-1] in {"datetime", "date"}
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    rooms, reason = ONLY_IN[library]
    found = sorted(
        f"{module.path} imports {library}: {reason}"
        for module in house()
        if module.room not in rooms and any(matches(name, library) for name in module.imports)
    )
    assert not found, "\n".join(found)


def test_the_law_sees_an_offence() -> None:
    tree = ast.parse("def f() -> None:\n    from p2pdist import server\n    import p2pdist.net.link\n")
    module = house()[0]
    bad = Module(path=module.path, room="core", lines=3, tree=tree)
    assert len(offences(bad)) == 2


@pytest.mark.parametrize("program", ["agent", "seed"])
def test_an_endpoint_loads_nothing_that_only_servers_and_people_need(program: str) -> None:
    code = f"import sys, p2pdist.{program}.main as program; program.PROGRAM.load(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert {name: reason for name, reason in ENDPOINT_FORBIDDEN.items() if name in loaded} == {}
