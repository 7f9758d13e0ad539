"""When somebody must sign again."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from p2pdist.wire.requests import Bundle


def people_expire(bundle: Bundle) -> int | None:
    """Return when the first role expires that people sign: root, targets, channels, points.

    Args:
        bundle: Verified metadata; of several roots the last counts.

    Returns:
        Unix seconds, or None where nothing is published.
    """
    expires: dict[str, tuple[int, int]] = {}
    for name, data in bundle.files.items():
        if name == "timestamp.json" or name.endswith(".snapshot.json"):
            continue
        version, _, role = name.removesuffix(".json").partition(".")
        signed = json.loads(data)["signed"]
        at = int(datetime.fromisoformat(signed["expires"].replace("Z", "+00:00")).astimezone(UTC).timestamp())
        if int(version) >= expires.get(role, (0, 0))[0]:
            expires[role] = (int(version), at)
    return min((at for _, at in expires.values()), default=None)
