"""The operator's calls of the admin server's HTTP API, one a line, from a host that reaches it.

    python -m matrix.console URL TOKEN_FILE CA_FILE

Reads lines of JSON, ``{"method", "path", "query", "body"}``, and prints the answer of each, or ``{"error"}``.
"""

from __future__ import annotations

import json
import ssl
import sys
from pathlib import Path

import httpx


def main() -> None:
    """Serve until the input ends."""
    url, token, ca = sys.argv[1:]
    with httpx.Client(
        base_url=f"{url}/api/v1",
        verify=ssl.create_default_context(cadata=Path(ca).read_text()),
        headers={"authorization": f"Bearer {Path(token).read_text().strip()}"},
        timeout=60,
        trust_env=False,
    ) as client:
        for line in sys.stdin:
            print(json.dumps(_ask(client, **json.loads(line))), flush=True)


def _ask(client: httpx.Client, method: str, path: str, query: dict[str, str], body: object) -> object:
    try:
        answer = client.request(method, path, params=query, json=body)
    except httpx.HTTPError as error:
        return {"error": f"{method} {path}: {error!r}"}
    if answer.is_success:
        return answer.json()
    return {"error": f"{method} {path}: {answer.status_code} {answer.text}"}


if __name__ == "__main__":
    main()
