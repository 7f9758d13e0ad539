"""Habits that keep the house readable: sizes, words, and what no committed file contains."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from house_source import ROOT, committed, house

MODULE_LINES_MAX = 400
TABLES = frozenset({"limits"})
"""Modules that are a table: one looks something up there, and nobody reads them from end to end."""
FUNCTION_LINES_MAX = 70
PROGRAMS = frozenset({"server", "seed", "agent", "sign", "cli", "node"})

# Put together from halves, so that this file does not contain them.
NOT_COMMITTED = {
    "a registry's or mirror's host; the machine's own configuration names it": (
        r"py" + r"pi\.org|python" + r"hosted\.org|registry\.npm" + r"js|deb\.debian" + r"\.org"
        r"|archive\.ubuntu" + r"\.com|crates\." + r"io|ghcr\." + r"io|docker\." + r"io|--index" + r"-url"
    ),
    "a path of one person's machine": r"/wor" + r"k/(main|shared)|/roo" + r"t/[a-z.]|/hom" + r"e/[a-z]+/",
    "a private key": r"-----BEGIN [A-Z ]*PRIV" + r"ATE KEY-----\n[A-Za-z0-9+/]{40}",
    "work that was put off": r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
}

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def test_a_module_fits_in_a_head() -> None:
    found = {
        str(module.path): module.lines
        for module in house()
        if module.lines > MODULE_LINES_MAX and module.path.stem not in TABLES
    }
    assert not found, f"{found}: find the hidden machine in it and give it a module of its own"


def test_a_function_fits_on_a_screen() -> None:
    found = {
        f"{module.path}:{node.lineno} {node.name}": length
        for module in house()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert not found, f"{found}: find the hidden machine in it and name it"


def test_every_module_says_what_it_is_for() -> None:
    found = [
        str(module.path)
        for module in house()
        if ast.get_docstring(module.tree) is None and module.path.parent.name != "versions"
    ]
    assert not found, "\n".join(found)


def test_only_programs_print() -> None:
    found = [
        f"{module.path}:{node.lineno}"
        for module in house()
        if module.room not in PROGRAMS
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not found, f"{found}: a library logs; standard output belongs to the program's result"


@pytest.mark.parametrize("what", sorted(NOT_COMMITTED))
def test_no_committed_file_contains(what: str) -> None:
    pattern = re.compile(NOT_COMMITTED[what].encode())
    found = [
        f"{path.relative_to(ROOT)}:{len(data[: match.start()].splitlines()) or 1}"
        for path in committed()
        if path.suffix not in {".png", ".svg"}
        for data in [path.read_bytes()]
        for match in pattern.finditer(data)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_is_half_a_page_with_its_reason(path: Path) -> None:
    text = path.read_text()
    number = re.fullmatch(r"(\d{4})-[a-z0-9]+(-[a-z0-9]+)*", path.stem)
    assert number is not None, "name it NNNN-title.md"
    assert text.startswith(f"# {number.group(1)} "), "its first line is '# NNNN Title'"
    assert "\n**Decision.** " in text, "say what was decided"
    assert "\n**Why.** " in text, "say why"
    assert "\n**Price.** " in text or "\n**Undo.** " in text, "say what it costs, or how to undo it"
    assert text.count("\n") <= 45, "half a page"


def test_decisions_have_different_numbers() -> None:
    numbers = [path.stem[:4] for path in DECISIONS]
    assert len(numbers) == len(set(numbers))
