"""TOML and JSON that somebody else may have written, read so that nothing but our errors comes out.

The parsers below raise more than they say: a number of thousands of digits, text that is not UTF-8 and
brackets nested a thousand deep each end in an exception of Python's own. All of it is caught here, once.
"""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from p2pdist.errors import P2PDistError, UsageError
from p2pdist.files import read_bounded

T = TypeVar("T")


def read_toml(path: Path, *, bytes_max: int) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: it cannot be read, is larger than *bytes_max*, or is not TOML.
    """
    data = read_bounded(path, bytes_max=bytes_max)
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{path} is not TOML: {error}", hint='write key = "value" below a [table], one a line'
        ) from error
    except ValueError as error:  # what Python says of an integer with more than 4,300 digits
        raise UsageError(f"{path}: a number in it is too long", hint="correct the value") from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply", hint="tables have two levels here") from error


def decode_json(
    data: bytes | str,
    kind: type[T] | Any,
    what: str,
    *,
    hint: str = "",
    family: type[P2PDistError] = UsageError,
) -> T:
    """Parse and validate JSON as *kind*.

    Args:
        data: The document.
        kind: A type that msgspec knows.
        what: The clause that says what is wrong, with the file's name: ``index.json is damaged``.
        hint: What the reader can do about it.
        family: The error to raise.

    Raises:
        family: it is not JSON, or not a valid *kind*. No other error leaves here.
    """
    try:
        decoded: T = msgspec.json.decode(data, type=kind, strict=True)
    except (msgspec.MsgspecError, ValueError) as error:
        raise family(f"{what} ({error})", hint=hint) from error
    except RecursionError as error:
        raise family(f"{what} (it is nested too deeply)", hint=hint) from error
    return decoded


def refuse_unknown_keys(
    raw: Mapping[str, Any], kind: type[msgspec.Struct], source: Path, outer: tuple[str, ...] = ()
) -> None:
    """Refuse a table that says something that *kind* does not know: a typing error would go unnoticed.

    Raises:
        UsageError: naming *source* and the key, and suggesting the nearest one that is known.
    """
    known = {field.encode_name: struct_in(field.type) for field in msgspec.structs.fields(kind)}
    for key, value in raw.items():
        if key not in known:
            raise UsageError(
                f"{source}: unknown key {'.'.join((*outer, key))}", hint=suggestion(key, known, "keys here")
            )
        inner = known[key]
        if inner is not None:
            for table in value if isinstance(value, list) else [value]:
                if isinstance(table, dict):
                    refuse_unknown_keys(table, inner, source, (*outer, key))


def suggestion(word: str, known: Mapping[str, object], what: str) -> str:
    """Suggest the nearest of the *known* words, or list them."""
    import difflib  # an endpoint that is told nothing wrong does without

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"the {what} are {', '.join(sorted(known))}"


def struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    """Return the struct that *annotation* is, may be, or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    for part in typing.get_args(annotation):
        inner = struct_in(part)
        if inner is not None:
            return inner
    return None
