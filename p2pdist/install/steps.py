"""What an installer was about to do, on the disk before it does it.

One small file per product. It answers two questions after a crash: was a step begun that has to be
finished or taken back, and has this very attempt ended already?
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from p2pdist import ids, limits
from p2pdist.documents import decode_json
from p2pdist.errors import Unavailable, UsageError
from p2pdist.files import read_bounded, write_atomic
from p2pdist.install.processes import ProcessResult
from p2pdist.trust.catalog import Release

_STEP_BYTES_MAX = 256 * limits.KIB  # the output's tail in base64, and a few names


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallLayout:
    """Where things go on this machine.

    ``root`` is what recipes' paths are below: ``/``, or a directory that stands for it. ``state`` is a
    directory of the installers' own, on a disk that survives a restart.
    """

    root: Path
    state: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallResult:
    """How one installation ended. ``failure`` is empty when the release is installed."""

    exit_code: int | None = None
    output: bytes = b""
    failure: str = ""

    @property
    def installed(self) -> bool:
        """Whether the release is on the machine and works, as far as its recipe can tell."""
        return not self.failure


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """The newest step of one product's installers.

    ``started``: the machine is being changed; ``undoing``: it is being brought back, for the reason in
    ``failure``; ``finished``: it is as the result says. ``previous`` is what to bring back.
    """

    kind: str
    attempt: str
    sha256: str
    phase: Literal["started", "undoing", "finished"]
    previous: str | None = None
    exit_code: int | None = None
    output: bytes = b""
    failure: str = ""

    def result(self) -> InstallResult:
        """What this step says about the attempt."""
        return InstallResult(exit_code=self.exit_code, output=self.output, failure=self.failure)


class Job:
    """One call of an installer: what to install, where, and the step on the disk. Blocking methods.

    Attributes:
        last: The step that an earlier call left, if it was not finished and of the same kind.
        finished: Whether :meth:`finish` has been called.
    """

    def __init__(self, release: Release, artifact: Path, layout: InstallLayout, attempt: str) -> None:
        self.release = release
        self.artifact = artifact
        self.layout = layout
        self.attempt = attempt
        self.kind = str(release.recipe.__struct_config__.tag)
        self.name = f"{release.channel}@{ids.parse_product(release.product)}"
        self._path = layout.state / f"{self.name}.json"
        self.last: Step | None = None
        self.finished = False

    @property
    def witness(self) -> Path:
        """The named pipe that this product's programs hold open."""
        return self.layout.state / f"{self.name}.alive"

    @property
    def scratch(self) -> Path:
        """A directory for this product's temporary files."""
        return self.layout.state / f"{self.name}.scratch"

    @property
    def environment(self) -> dict[str, str]:
        """What this product's programs are told."""
        return {
            "P2PDIST_ROOT": str(self.layout.root),
            "P2PDIST_PRODUCT": self.release.product,
            "P2PDIST_VERSION": self.release.version,
            "P2PDIST_SEQUENCE": str(self.release.sequence),
        }

    @property
    def resumes(self) -> bool:
        """Whether the unfinished step is of this attempt and these bytes."""
        return self.last is not None and self._same(self.last)

    def load(self) -> InstallResult | None:
        """Read the step on the disk; return the result if this attempt has ended already.

        Raises:
            Unavailable: the file is damaged.
        """
        for leftover in self.layout.state.glob(f".{self._path.name}.*.new"):
            leftover.unlink(missing_ok=True)  # of a writer that was killed
        step = self._read()
        if step is None:
            return None
        if step.phase == "finished":
            return step.result() if self.attempt and self._same(step) else None
        self.last = step if step.kind == self.kind else None
        return None

    def begin(self, *, previous: str | None = None) -> None:
        """Write down that the machine is about to be changed, and what to bring back if it fails."""
        self._write("started", previous, InstallResult())

    def undo(self, result: InstallResult, *, previous: str | None) -> None:
        """Write down that the machine is about to be brought back, because of ``result.failure``."""
        self._write("undoing", previous, result)

    def finish(self, result: InstallResult) -> None:
        """Write down how this attempt ended."""
        self._write("finished", None, result)
        self.finished = True

    def clear_witness(self) -> None:
        """Forget earlier programs: a daemon that one of them started may live, and is not waited for."""
        self.witness.unlink(missing_ok=True)

    def _same(self, step: Step) -> bool:
        return (step.kind, step.attempt, step.sha256) == (self.kind, self.attempt, self.release.sha256)

    def _write(
        self, phase: Literal["started", "undoing", "finished"], previous: str | None, result: InstallResult
    ) -> None:
        step = Step(
            kind=self.kind,
            attempt=self.attempt,
            sha256=self.release.sha256,
            phase=phase,
            previous=previous,
            exit_code=result.exit_code,
            output=result.output,
            failure=result.failure,
        )
        write_atomic(self._path, msgspec.json.encode(step))

    def _read(self) -> Step | None:
        if not self._path.exists():
            return None
        try:
            data = read_bounded(self._path, bytes_max=_STEP_BYTES_MAX)
            step: Step = decode_json(data, Step, "it is not a step")
        except UsageError as error:
            raise Unavailable(
                f"{self._path} is damaged ({error})",
                hint="check what is installed of this product, then remove the file",
            ) from error
        return step


def failed_process(
    what: str, ran: ProcessResult, *, expected: tuple[int, ...] = (0,)
) -> InstallResult | None:
    """Judge a program's end: None if it is as expected, otherwise the failure that says why not."""
    if ran.problem:
        failure = f"{what} {ran.problem}"
    elif ran.exit_code not in expected:
        failure = f"{what} ended with exit code {ran.exit_code}"
    else:
        return None
    return InstallResult(exit_code=ran.exit_code, output=ran.output, failure=failure)


def require_below(root: Path, path: Path) -> None:
    """Refuse a path that leaves the install root through a symbolic link, before anything is made there.

    Raises:
        UsageError: it does. What of *path* does not exist yet counts as what it will be.
    """
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise UsageError(
            f"{path} leaves the install root through a symbolic link: it is {real}",
            hint="remove the link, or install below the directory that it names",
        )
