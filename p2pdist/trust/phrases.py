"""Values of signed metadata as people read them: dates, sizes, modes, how a release is installed.

What is described may come from strangers: a value that is not of the kind that its field holds is shown as
it stands, and nothing in it can steer a terminal.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from p2pdist.trust.catalog import (
    AgentRecipe,
    AnyRecipe,
    CommandRecipe,
    DebRecipe,
    Delta,
    FileRecipe,
    Mirror,
    TreeRecipe,
)

_UNITS = ("kB", "MB", "GB", "TB")
_UNIX_SECONDS_MAX = 32_503_680_000  # the year 3000


def field_words(name: str, value: Any) -> tuple[str, str]:
    """Name a field of a release or of a seed grant, and its value."""
    label, words = _FIELDS.get(name, (name, repr))
    return label, words(value)


def in_order(fields: Iterable[str]) -> list[str]:
    """Sort the names of fields: as people look for them, and unknown ones last."""
    known = list(_FIELDS)
    return sorted(fields, key=lambda name: (known.index(name) if name in _FIELDS else len(known), name))


def size_words(count: Any) -> str:
    """1500 is ``1.5 kB (1500 bytes)``; below 1000 the bytes are enough."""
    if type(count) is not int or count < 0:
        return repr(count)
    value, unit = float(count), ""
    for larger in _UNITS:
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit} ({count} bytes)" if unit else f"{count} bytes"


def recipe_words(raw: Any) -> str:
    """Say how a release is installed."""
    try:
        recipe: AnyRecipe = msgspec.convert(raw, AnyRecipe, strict=True)
    except msgspec.ValidationError:
        return repr(raw)
    words = f"{_recipe_words(recipe)}, within {recipe.timeout_s} s"
    unknown = {name: raw[name] for name in raw if name not in {"kind", *recipe.__struct_fields__}}
    return f"{words}; and {unknown!r}" if unknown else words


def printable(text: str) -> str:
    """Return *text* with everything escaped that could steer a terminal or hide a part of the line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _recipe_words(recipe: AnyRecipe) -> str:
    match recipe:
        case TreeRecipe():
            stay = {0: "no older version stays", 1: "one older version stays"}
            words = f"a tree of {recipe.entries} entries, unpacked {size_words(recipe.unpacked_bytes)};"
            words += f" {stay.get(recipe.keep, f'{recipe.keep} older versions stay')}"
            return words + _command("healthy if this succeeds:", recipe.health_check)
        case DebRecipe():
            return f"the Debian package {recipe.package} {recipe.version} for {recipe.architecture}"
        case CommandRecipe():
            codes = ", ".join(map(str, recipe.expected_exit_codes))
            words = f"it runs: {shlex.join(recipe.arguments)}; done with exit code {codes}"
            return words + _command("there already if this succeeds:", recipe.check)
        case FileRecipe():
            words = f"the file {recipe.path} with the mode {recipe.mode:04o}"
            return words + _command("afterwards it runs:", recipe.reload)
        case AgentRecipe():
            return "the agent itself; the version before comes back unless the new one reports"


def _command(words: str, arguments: list[str]) -> str:
    return f"; {words} {shlex.join(arguments)}" if arguments else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _list(value: Any) -> str:
    texts = isinstance(value, list) and all(isinstance(part, str) for part in value)
    return (", ".join(value) or "none") if texts else repr(value)


def _mirrors(value: Any) -> str:
    try:
        return ", ".join(map(str, msgspec.convert(value, list[str | Mirror]))) or "none"
    except msgspec.ValidationError:
        return repr(value)


def _deltas(value: Any) -> str:
    try:
        deltas = msgspec.convert(value, list[Delta])
    except msgspec.ValidationError:
        return repr(value)
    return ", ".join(f"from {each.base[:12]}… {size_words(each.length)}" for each in deltas) or "none"


def _date(value: Any) -> str:
    if type(value) is not int or not 0 <= value < _UNIX_SECONDS_MAX:
        return repr(value)
    return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M} UTC"


def _limit(words_for_none: str, after: str = "") -> Callable[[Any], str]:
    return lambda value: words_for_none if value == 0 else size_words(value) + after


def _direction(value: Any) -> str:
    words = {True: "it dials nobody: those above dial it", False: "it dials those above"}
    return words[value] if isinstance(value, bool) else repr(value)


_FIELDS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "product": ("product", _text),
    "version": ("version", _text),
    "sequence": ("sequence number", repr),
    "platform": ("platform", _text),
    "info_hash": ("info-hash", _text),
    "recipe": ("installation", recipe_words),
    "prerequisites": ("needs first", _list),
    "mirrors": ("mirrors", _mirrors),
    "deltas": ("deltas", _deltas),
    "node": ("node", _text),
    "duties": ("duties", _list),
    "scope": ("scope", _text),
    "addresses": ("addresses", _list),
    "dialled": ("who dials", _direction),
    "expires": ("ends", _date),
    "disk_bytes": ("disk", _limit("all that is free")),
    "wan_bytes_per_s": ("rate from outside its site", _limit("unlimited", " per second")),
}
