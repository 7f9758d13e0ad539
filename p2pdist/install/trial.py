"""A new version of the agent on trial: what the agent and the guard that starts it agree on, as files.

::

    PLACE/p2pdist-agent            a link to the version in use, which the guard starts
    PLACE/versions/HASH/p2pdist-agent
    PLACE/trial                    the version NEW is on trial; OLD is the one before
    PLACE/trial.failed             the same, given up by the guard; OLD is to be in use again
    PLACE/trial.count              the guard's: how often NEW has ended, for how long it ran, in which boot
    PLACE/trial.reason             the guard's: why it gave up

A trial ends in one of two ways: the agent removes the file, because the admin server has heard of the new
version, or the guard renames it. Whoever comes second finds it gone; so exactly one of them decides.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded, sync_directory, write_atomic

PROGRAM = "p2pdist-agent"
_VERSIONS = "versions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A trial that the guard has given up.

    ``slow`` is true where the version ran until its time was over: it may have been the network's fault.
    """

    reason: str
    number: int
    slow: bool


class Place:
    """The directory in which one machine's versions of the agent stand. Blocking methods; all of them may be
    repeated after a crash. They raise :class:`OSError` where the disk is full or fails.

    Args:
        running: The file of the version that runs.
        sha256: The one that is to run.
    """

    def __init__(self, running: Path, sha256: str) -> None:
        self._root = running.parents[2]
        self._running = running
        self.new = self._root / _VERSIONS / sha256[:16] / PROGRAM
        self._link = self._root / PROGRAM
        self._fresh_link = self._root / f"{PROGRAM}.new"
        self._trial = self._root / "trial"
        self._failed = self._root / "trial.failed"
        self._count = self._root / "trial.count"
        self._reason = self._root / "trial.reason"

    def write_new(self, artifact: Path) -> None:
        """Have the new version there, whole and synced; of the others only the one that runs stays."""
        self.keep_only(self._running, self.new)
        directory = self.new.parent
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        part = self.new.with_name(f"{PROGRAM}.part")
        part.unlink(missing_ok=True)
        try:
            with artifact.open("rb") as source, part.open("xb") as file:
                shutil.copyfileobj(source, file)
                os.fchmod(file.fileno(), 0o755)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.new)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_directory(directory)
        sync_directory(directory.parent)

    def begin(self, *, number: int, seconds: int) -> None:
        """Put the new version on trial, and in use: the guard starts it next.

        Args:
            number: Which trial of this version this is, from 1.
            seconds: How long it may run before the admin server has heard of it.
        """
        lines = {
            "new": self.new,
            "old": self._running,
            "number": number,
            "seconds": seconds,
            "starts": limits.TRIAL_STARTS_MAX,
            "pause": max(1, min(limits.TRIAL_PAUSE_S_MAX, seconds // 60)),
        }
        self._count.unlink(missing_ok=True)
        write_atomic(self._trial, "".join(f"{key}={value}\n" for key, value in lines.items()).encode())
        self._forget_failed()
        self._use(self.new)

    def is_on_trial(self) -> bool:
        """Whether somebody has still to decide about the new version, or the guard has just done it."""
        return self._trial.exists() or self.failed() is not None

    def confirm(self) -> bool:
        """End the trial of the version that runs: it stays. Return false where the guard was faster."""
        self._trial.unlink(missing_ok=True)
        sync_directory(self._root)
        return self.failed() is None

    def failed(self) -> Failed | None:
        """Return how the guard gave up the new version; None if it has not."""
        said = _lines(self._failed)
        if said.get("new") != str(self.new):
            return None
        count = _lines(self._count)
        return Failed(
            reason=_text(self._reason) or "the guard gave no reason",
            number=_number(said, "number"),
            slow=_number(count, "ended") < _number(said, "starts"),
        )

    def clear(self) -> None:
        """Forget trials that are over, and have the link name the version that runs."""
        self._trial.unlink(missing_ok=True)
        if Path(os.path.realpath(self._link)) != Path(os.path.realpath(self._running)):
            self._use(self._running)
        self._forget_failed()
        self._count.unlink(missing_ok=True)
        unfinished = (*self._root.glob(".trial.*.new"), self._root / "trial.count.new", self._fresh_link)
        for leftover in unfinished:
            leftover.unlink(missing_ok=True)  # of a writer that was killed

    def keep_only(self, *versions: Path) -> None:
        """Remove all other versions."""
        kept = {version.parent for version in versions}
        for directory in (self._root / _VERSIONS).iterdir():
            if directory not in kept:
                shutil.rmtree(directory)

    def _use(self, version: Path) -> None:
        self._fresh_link.unlink(missing_ok=True)
        self._fresh_link.symlink_to(version)
        self._fresh_link.replace(self._link)
        sync_directory(self._root)

    def _forget_failed(self) -> None:
        self._failed.unlink(missing_ok=True)
        self._reason.unlink(missing_ok=True)
        sync_directory(self._root)


def _lines(path: Path) -> dict[str, str]:
    """Read ``key=value`` lines; what is not there, or no text, says nothing."""
    return dict(line.split("=", 1) for line in _text(path).splitlines() if "=" in line)


def _text(path: Path) -> str:
    try:
        data = read_bounded(path, bytes_max=limits.TRIAL_FILE_BYTES_MAX)
    except UsageError:
        return ""
    return data.decode("utf-8", "replace").strip()


def _number(lines: dict[str, str], key: str) -> int:
    text = lines.get(key, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
