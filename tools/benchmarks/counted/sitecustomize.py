"""Counts what a p2pdist program decodes: frames, requests and messages, by their type.

Python imports this by itself in every program that is started with this directory in ``PYTHONPATH``. On
SIGUSR1 the program writes its counts, since it began, into ``$P2PDIST_BENCH_COUNTS/PID.json``.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from p2pdist.wire import codec

_counts: Counter[str] = Counter()
_decode = codec.decode


def _counted(data: bytes, kind: Any, **options: Any) -> Any:
    found = _decode(data, kind, **options)
    _counts[type(found).__name__] += 1
    return found


def _write(number: int, frame: Any) -> None:
    path = Path(os.environ["P2PDIST_BENCH_COUNTS"]) / f"{os.getpid()}.json"
    path.with_suffix(".new").write_text(json.dumps(_counts))
    path.with_suffix(".new").replace(path)


if "P2PDIST_BENCH_COUNTS" in os.environ:
    codec.decode = _counted  # type: ignore[assignment]
    signal.signal(signal.SIGUSR1, _write)
