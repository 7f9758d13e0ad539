"""The program of killed.py, as tests ask it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from p2pdist.trust.catalog import Release


class Killer:
    """The program, asked from here."""

    def __init__(self) -> None:
        program = Path(__file__).with_name("killed.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(
        self,
        release: Release,
        artifact: Path,
        device: Path,
        attempt: str,
        kill_at: int = 0,
        own: Path | None = None,
    ) -> None:
        request = {
            "release": msgspec.to_builtins(release),
            "artifact": str(artifact),
            "root": str(device / "root"),
            "state": str(device / "state"),
            "attempt": attempt,
            "kill_at": kill_at,
            "own": str(own or ""),
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def install(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        self.start(*arguments, **options)
        return self.answer()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()
