"""What the laws look at: the committed files, and what each module imports and calls."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Module:
    """One Python module of the house: where it is and what it says."""

    path: Path
    """From the top of the checkout, such as ``p2pdist/net/link.py``."""
    room: str
    """``net`` of ``p2pdist/net/link.py``; ``errors`` of ``p2pdist/errors.py``."""
    lines: int
    tree: ast.Module

    @functools.cached_property
    def imports(self) -> Sequence[str]:
        """The dotted names that it imports, wherever in the file: ``p2pdist.core.scope``, ``trio``."""
        return list(_imports(self.tree))


@functools.cache
def house() -> Sequence[Module]:
    """Return every module below ``p2pdist/``."""
    return [_module(path) for path in sorted((ROOT / "p2pdist").rglob("*.py"))]


@functools.cache
def committed() -> Sequence[Path]:
    """Return every file that git keeps (or everything outside the hidden directories, without git)."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not _hidden(path.relative_to(ROOT))]
    return [path for path in paths if path.is_file()]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") and part != ".ci" for part in path.parts)


def _module(path: Path) -> Module:
    text = path.read_text()
    relative = path.relative_to(ROOT)
    parts = relative.with_suffix("").parts
    return Module(
        path=relative,
        room="" if parts[1] == "__init__" else parts[1],
        lines=text.count("\n"),
        tree=ast.parse(text),
    )


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
