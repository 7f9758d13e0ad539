"""The OpenAPI 3.1 description, made from the table of routes and the types in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

import p2pdist
from p2pdist.server.api.table import Route
from p2pdist.wire.api import PROBLEM_TYPE, ProblemDetails

_REFERENCE = "#/components/schemas/{name}"
_VARIABLE = re.compile(r"{(\w+)(?::\w+)?}")


def describe(routes: Sequence[Route], prefix: str) -> dict[str, Any]:
    """Return the description as a JSON-like value."""
    kinds = [route.answer for route in routes if route.answer is not bytes]
    kinds += [route.body for route in routes if route.body is not None]
    schemas, components = msgspec.json.schema_components([*kinds, ProblemDetails], ref_template=_REFERENCE)
    by_kind = dict(zip([*kinds, ProblemDetails], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = prefix + _VARIABLE.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "p2pdist admin server",
            "version": p2pdist.__version__,
            "description": "What the command line `p2pdist` uses. Times are Unix seconds, sizes bytes.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, by_kind: dict[Any, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _VARIABLE.findall(route.path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
        for name, meaning in route.query.items()
    ]
    answer = by_kind.get(route.answer, {"type": "object"})
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__name__,
        "description": _description(route),
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": answer}}},
            "default": {
                "description": "Why it was not done",
                "content": {PROBLEM_TYPE: {"schema": by_kind[ProblemDetails]}},
            },
        },
        "security": [{"token": []}] if route.role is not None else [],
    }
    if route.body is not None:
        schema = {"schema": by_kind[route.body]}
        operation["requestBody"] = {"required": True, "content": {"application/json": schema}}
    elif route.streams:
        raw = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": raw}}
    return operation


def _description(route: Route) -> str:
    text = (route.handler.__doc__ or "").strip()
    return f"{text} Needs the role {route.role}, or a higher one." if route.role else text
