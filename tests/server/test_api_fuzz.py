"""The API asked as its own description says, and as it does not: it answers, or says why it does not."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serverkit import PATIENCE_S, Fleet, enrolled_device, open_fleet

from p2pdist.server.api.openapi import describe
from p2pdist.server.api.routes import PREFIX, ROUTES
from p2pdist.wire.api import PROBLEM_TYPE, ProblemDetails

pytestmark = pytest.mark.slow  # a whole server: not in the fast subset

DESCRIPTION: dict[str, Any] = describe(ROUTES, PREFIX)
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in DESCRIPTION["paths"].items()
    for method, operation in methods.items()
]
EXAMPLES = 12  # of each operation
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["/", "/emea", "laptop", "app@1.0", "ab" * 32, "0", "-1", "9" * 25, "\0", "..", "%"])
TEXT = NAMES | st.text(max_size=40)


def fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a schema of the description allows, nearly."""
    if "$ref" in schema:
        return fitting(DESCRIPTION["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of(*map(fitting, schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema:
            fields = {name: fitting(kind) for name, kind in schema["properties"].items()}
            needed = set(schema.get("required", ()))
            optional = {name: kind for name, kind in fields.items() if name not in needed}
            return st.fixed_dictionaries({n: k for n, k in fields.items() if n in needed}, optional=optional)
        case "object":
            return st.dictionaries(TEXT, fitting(schema.get("additionalProperties") or {}), max_size=3)
        case "array":
            return st.lists(fitting(schema.get("items", {})), max_size=3)
        case "integer":
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case "string":
            return TEXT
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
    return JSON


def body_of(operation: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A body as described, another one, or none."""
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        described = fitting(content["application/json"]["schema"])
        valid = st.one_of(described, JSON).map(lambda value: json.dumps(value).encode())
        return valid | st.binary(max_size=50)
    return st.binary(max_size=200) if content else st.just(b"")


def query_of(operation: dict[str, Any]) -> st.SearchStrategy[dict[str, str]]:
    """Parameters as described, with any values, and now and then one too many."""
    names = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"]
    values = TEXT | st.integers(0, 300).map(str)
    known = st.fixed_dictionaries({}, optional=dict.fromkeys(names, values))
    return known | st.dictionaries(st.sampled_from([*names, "unknown"]), values, max_size=2)


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=[f"{method} {path}" for method, path, _ in OPERATIONS]
)
async def test_an_operation_answers_or_says_why_not_whatever_it_is_asked(
    tmp_path: Path, method: str, path: str, operation: dict[str, Any]
) -> None:
    variables = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]
    async with open_fleet(tmp_path) as fleet:
        await enrolled_device(fleet)

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(
            names=st.lists(TEXT, min_size=len(variables), max_size=len(variables)),
            query=query_of(operation),
            body=body_of(operation),
        )
        def ask(names: list[str], query: dict[str, str], body: bytes) -> None:
            asked = path
            for variable, name in zip(variables, names, strict=True):
                asked = asked.replace("{" + variable + "}", quote(name, safe=""))
            response = client.request(method, asked, params=query, content=body)
            check(response, method)

        with client_of(fleet) as client:
            await trio.to_thread.run_sync(ask)
            status = await fleet.operator.client.get(f"{PREFIX}/health")
        assert status.json()["status"] == "ok"


def client_of(fleet: Fleet) -> httpx.Client:
    return httpx.Client(
        base_url=f"https://{fleet.api[0]}:{fleet.api[1]}",
        verify=ssl.create_default_context(cadata=fleet.ca_pem.decode()),
        headers={"authorization": f"Bearer {fleet.token}"},
        timeout=PATIENCE_S,
    )


def check(response: httpx.Response, method: str) -> None:
    """It was carried out with an answer as described, or refused with a problem document."""
    assert response.status_code < 500, (response.request.url, response.text)
    if response.status_code == 200:
        assert response.headers["content-type"] == "application/json"
        return
    assert response.status_code in (400, 404, 405, 409, 422), response.status_code
    assert response.headers["content-type"] == PROBLEM_TYPE
    if method != "HEAD":
        problem = json.loads(response.content)
        assert set(problem) == set(ProblemDetails.__struct_fields__) and problem["detail"]
        assert problem["status"] == response.status_code
