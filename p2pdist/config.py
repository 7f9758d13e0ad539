"""Configuration: one TOML file, validated once into frozen types.

A configuration type is a frozen :class:`msgspec.Struct` whose fields are values or, one table of the
file each, further structs. ``P2PDIST_<TABLE>_<KEY>`` in the environment overrides the file and is read
as the field's type says: ``P2PDIST_SWARM_PORT=6881``, ``P2PDIST_LOG_JSON=true``,
``P2PDIST_LINK_ADDRESSES=a:7601,b:7601`` (or a JSON array). Tables in a list cannot be overridden.

A field of type :class:`~pathlib.Path` is made absolute: from the file's directory where it stands in the
file, from the working directory where it comes from the environment.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from p2pdist import limits
from p2pdist.documents import decode_json, read_toml, refuse_unknown_keys, struct_in, suggestion
from p2pdist.errors import UsageError

T = TypeVar("T", bound=msgspec.Struct)

_PREFIX = "P2PDIST_"
_WHERE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")


def load_config(path: Path | None, kind: type[T], environ: Mapping[str, str]) -> T:
    """Read the configuration file *path* into *kind*, environment overrides included.

    Args:
        path: The TOML file, or None where the environment and the defaults say everything.
        kind: A frozen struct type.
        environ: The process's environment; variables of other tables than *kind*'s are left alone.

    Raises:
        UsageError: the file cannot be read, is not TOML, has an unknown key, or a value does not fit.
            The message names the file or variable and the key, the hint says what to write.
    """
    raw: dict[str, Any] = {}
    if path is not None:
        raw = read_toml(path, bytes_max=limits.CONFIG_BYTES_MAX)
        refuse_unknown_keys(raw, kind, path)
    base = path.parent.absolute() if path is not None else Path.cwd()
    _apply_environment(raw, kind, environ)
    source = str(path) if path is not None else "the configuration"
    try:
        return msgspec.convert(raw, kind, dec_hook=_hook_for(base))
    except msgspec.ValidationError as error:
        raise _explained(str(error), source) from error


def _apply_environment(raw: dict[str, Any], kind: type[msgspec.Struct], environ: Mapping[str, str]) -> None:
    names = dict(_variables(kind, ()))
    tables = {_PREFIX + keys[0].upper() + "_" for keys, _ in names.values() if len(keys) > 1}
    for name in sorted(environ):
        if name in names:
            keys, field_type = names[name]
            _put(raw, keys, _parse_variable(name, environ[name], field_type))
        elif name.startswith(tuple(tables)):
            raise UsageError(
                f"environment variable {name} sets nothing", hint=suggestion(name, names, "variables")
            )


def _variables(
    kind: type[msgspec.Struct], outer: tuple[str, ...]
) -> Iterator[tuple[str, tuple[tuple[str, ...], Any]]]:
    for field in msgspec.structs.fields(kind):
        keys = (*outer, field.encode_name)
        inner = struct_in(field.type)
        if inner is None:
            yield _PREFIX + "_".join(keys).upper().replace("-", "_"), (keys, field.type)
        elif not _is_list(field.type):
            yield from _variables(inner, keys)


def _put(raw: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        table = raw.get(key)
        raw[key] = raw = table if isinstance(table, dict) else {}
    raw[keys[-1]] = value


def _parse_variable(name: str, text: str, field_type: Any) -> Any:
    """Read *text* as *field_type* and return it as TOML would have given it."""
    raw: Any = text
    if _is_list(field_type):
        if text.startswith("["):
            what = f"environment variable {name} is not a list"
            raw = decode_json(text, list[Any], what, hint='write a,b or ["a", "b"]')
        else:
            raw = text.split(",") if text else []
    try:
        value = msgspec.convert(raw, field_type, strict=False, dec_hook=_hook_for(Path.cwd()))
    except msgspec.ValidationError as error:
        raise _explained(str(error), f"environment variable {name}") from error
    return msgspec.to_builtins(value, enc_hook=str)


def _hook_for(base: Path) -> Any:
    def hook(kind: type, value: Any) -> Any:
        if kind is Path:
            if not isinstance(value, str) or not value or "\0" in value:
                raise ValueError('Expected a path such as "/var/lib/p2pdist"')
            try:
                return base / Path(value).expanduser()
            except RuntimeError as error:  # "~nobody/x"
                raise ValueError(str(error)) from error
        raise TypeError(f"configuration types hold no {kind.__name__}")

    return hook


def _explained(message: str, source: str) -> UsageError:
    found = _WHERE.search(message)
    key, problem = (found.group(1), message[: found.start()]) if found else ("", message)
    missing = re.fullmatch(r"Object missing required field `([^`]*)`", problem)
    if missing is not None:
        full = f"{key}.{missing.group(1)}" if key else missing.group(1)
        return UsageError(f"{source}: {full} is missing", hint=f"add {missing.group(1)} = … to it")
    return UsageError(": ".join(filter(None, [source, key, _lowered(problem)])), hint="correct the value")


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:].replace("`", "'")


def _is_list(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return any(_is_list(part) for part in typing.get_args(annotation))
    return (origin or annotation) in (list, tuple, set, frozenset)
