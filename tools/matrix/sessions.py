"""A session from an operator at *left* to the device at *right*: which path it gets, and how fast."""

from __future__ import annotations

import json

from matrix.fleet import Fleet
from matrix.pairs import Found, Pair
from matrix.programs import MatrixError

_PATIENCE_S = 60.0


def session(fleet: Fleet, pair: Pair) -> Found:
    """Open a session, and wait until its first attempt at a better path is over.

    It begins when the session stands, relayed: then both sides are known to each other.
    """
    left, right = pair.nodes
    try:
        said = fleet.programs.run(
            fleet.grounds.stands[left].host,
            "p2pdist", "path", fleet.ids[right], "--no-nat", "--output", "json",
            patience_s=_PATIENCE_S,
        )  # fmt: skip
    except MatrixError as error:
        return Found(path="none", seconds=None, note=str(error))
    answer = json.loads(said)
    opened_s = answer["opened_ms"] / 1e3
    if answer["path"] == "relayed":
        return Found(path="relayed", seconds=opened_s, relayed_s=opened_s, note=answer["reason"])
    return Found(path=answer["path"], seconds=answer["seconds"], relayed_s=opened_s)
