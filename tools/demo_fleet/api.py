"""The admin server's HTTP API, as far as the demonstration looks at it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import msgspec

from demo_fleet.plan import DemoError
from p2pdist.wire import api as wire

T = TypeVar("T")


class Api:
    """Asks the admin server. Made by :func:`open_api`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, answer: type[T], **query: str) -> T:
        """Ask. Raises DemoError when the server is away or refuses."""
        return await self._ask("GET", path, answer, params=query)

    async def add_group(self, path: str) -> None:
        """Make a group."""
        await self._ask(
            "POST", "/groups", wire.GroupsChanged, content=msgspec.json.encode(wire.NewGroup(path=path))
        )

    async def deploy(self, target: str, group: str) -> str:
        """Order a release onto a group, and return the deployment's id."""
        body = msgspec.json.encode(wire.NewDeployment(target=target, group=group))
        return (await self._ask("POST", "/deployments", wire.DeploymentInfo, content=body)).id

    async def stop(self, deployment: str) -> None:
        """Stop a deployment."""
        await self._ask("DELETE", f"/deployments/{deployment}", wire.DeploymentInfo)

    async def _ask(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> T:
        try:
            response = await self._client.request(method, path, params=params, content=content)
        except httpx.HTTPError as error:
            raise DemoError(f"the admin server does not answer {method} {path}: {error!r}") from error
        if response.status_code >= 300:
            raise DemoError(
                f"the admin server answered {method} {path} with {response.status_code}: {response.text}"
            )
        return msgspec.json.decode(response.content, type=answer)


@asynccontextmanager
async def open_api(url: str, *, ca: Path, token: Path, door: Path | None) -> AsyncIterator[Api]:
    """Open the API at *url*, trusting the fleet's own authority only.

    Args:
        url: The API's address.
        ca: The fleet's authority.
        token: The operator's token.
        door: The Unix socket that leads there, where this machine's own network does not.
    """
    context = ssl.create_default_context(cadata=ca.read_text())
    async with httpx.AsyncClient(
        base_url=f"{url}/api/v1",
        headers={"authorization": f"Bearer {token.read_text().strip()}", "content-type": "application/json"},
        transport=httpx.AsyncHTTPTransport(verify=context, uds=str(door) if door else None),
        timeout=30,
        trust_env=False,
    ) as client:
        yield Api(client)
