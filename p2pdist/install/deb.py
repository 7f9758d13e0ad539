"""Debian packages, by the real dpkg.

Whether a package is installed is asked of dpkg's own database, which dpkg keeps consistent when it is
killed; so installing again is safe, and does nothing when nothing is left to do. A failed first
installation is purged; a failed upgrade is left as dpkg leaves it, which can restore the old files but
not always the old configuration. A full disk and a database that another program has locked are no
failures: it is tried again. Below a root that is not ``/``, dpkg's database stands in that root, and
maintainer scripts run outside of it with ``DPKG_ROOT`` set (dpkg's ``--force-script-chrootless``),
because such a root is not a whole system.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import trio

from p2pdist.errors import Unavailable
from p2pdist.files import storage_error
from p2pdist.install.processes import ProcessResult, environment_of, run_process
from p2pdist.install.steps import InstallResult, Job, failed_process, require_below
from p2pdist.trust.catalog import DebRecipe

_QUERY_TIMEOUT_S = 30.0
_NO_SPACE = os.strerror(errno.ENOSPC).encode()
_FATAL = 2  # dpkg did nothing; a package that fails, also for want of a lock in its own scripts, is 1
_LOCKED = re.compile(rb"^dpkg: error: (dpkg .*(?:is|was) locked by another process.*)$", re.MULTILINE)
_ABSENT, _PRESENT = "absent", "present"
"""What a step remembers of the package before: dpkg did not know it, or did."""


async def install_deb(job: Job, recipe: DebRecipe) -> InstallResult:
    """Install with dpkg, unless exactly this version is installed already.

    Raises:
        UsageError: dpkg's database in the root would stand outside of it.
        Unavailable: the root cannot be prepared, the disk is full, or another program holds dpkg's lock.
    """
    await trio.to_thread.run_sync(_prepare_root, job.layout.root)
    if await _installed(job, recipe):
        return InstallResult()
    problem = await _foreign(job, recipe)
    if problem is not None:
        return problem
    previous = job.last.previous if job.last is not None else await _known(job, recipe)
    await trio.to_thread.run_sync(lambda: job.begin(previous=previous))
    options = ["--force-confdef", "--force-confold", *_root_options(job.layout.root)]
    ran = await _run(job, ["dpkg", *options, "--install", str(job.artifact)], recipe.timeout_s)
    failed = failed_process("dpkg", ran)
    _raise_locked(ran, recipe)
    if failed is not None:
        if previous == _ABSENT:
            await _purge(job, recipe)
        if _NO_SPACE in ran.output:
            raise storage_error(
                f"dpkg could not install {recipe.package}", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            )
        return failed
    if not await _installed(job, recipe):
        failure = f"dpkg ended well, but {recipe.package} {recipe.version} is not installed"
        return InstallResult(exit_code=ran.exit_code, output=ran.output, failure=failure)
    return InstallResult(exit_code=ran.exit_code, output=ran.output)


def _raise_locked(ran: ProcessResult, recipe: DebRecipe) -> None:
    """Say that another program (apt, unattended-upgrades) is at work. Then dpkg has changed nothing."""
    locked = _LOCKED.search(ran.output) if ran.exit_code == _FATAL else None
    if locked is not None:
        raise Unavailable(
            f"dpkg could not install {recipe.package} ({locked.group(1).decode('utf-8', 'replace')})",
            hint="it is tried again by itself once the other program has ended",
        )


async def _installed(job: Job, recipe: DebRecipe) -> bool:
    form = r"${db:Status-Abbrev}\t${Version}\t${Architecture}\n"
    options = _root_options(job.layout.root)[:1]
    arguments = ["dpkg-query", *options, "--show", f"--showformat={form}", recipe.package]
    ran = await _run(job, arguments, _QUERY_TIMEOUT_S)
    wanted = ["ii ", recipe.version, recipe.architecture]
    lines = ran.output.decode("utf-8", "replace").splitlines()
    return ran.exit_code == 0 and any(line.split("\t") == wanted for line in lines)


async def _known(job: Job, recipe: DebRecipe) -> str:
    options = _root_options(job.layout.root)[:1]
    ran = await _run(job, ["dpkg-query", *options, "--status", recipe.package], _QUERY_TIMEOUT_S)
    return _PRESENT if ran.exit_code == 0 else _ABSENT


async def _purge(job: Job, recipe: DebRecipe) -> None:
    """Take back a first installation that failed half way. What dpkg cannot undo stays as it is."""
    options = ["--force-remove-reinstreq", *_root_options(job.layout.root)]
    await _run(job, ["dpkg", *options, "--purge", recipe.package], recipe.timeout_s)


async def _foreign(job: Job, recipe: DebRecipe) -> InstallResult | None:
    """The failure to report if the artifact is not the package that the signed recipe names."""
    form = "${Package}\t${Version}\t${Architecture}\n"
    arguments = ["dpkg-deb", "--show", f"--showformat={form}", str(job.artifact)]
    ran = await _run(job, arguments, _QUERY_TIMEOUT_S)
    failed = failed_process("dpkg-deb", ran)
    if failed is not None:
        return failed
    wanted = [recipe.package, recipe.version, recipe.architecture]
    lines = ran.output.decode("utf-8", "replace").splitlines()
    if any(line.split("\t") == wanted for line in lines):  # others may be warnings
        return None
    failure = f"the package is {' '.join(lines)[:200]!r}, but {' '.join(wanted)} was signed"
    return InstallResult(failure=failure)


async def _run(job: Job, arguments: list[str], timeout_s: float) -> ProcessResult:
    environment = environment_of({**job.environment, "DEBIAN_FRONTEND": "noninteractive"})
    return await run_process(
        arguments, timeout_s=timeout_s, cwd=Path("/"), environment=environment, witness=job.witness
    )


def _root_options(root: Path) -> list[str]:
    """What tells dpkg about a root of its own. The first is for dpkg-query too."""
    if root == Path("/"):
        return []
    options = [f"--root={root}", f"--log={root / 'var/log/dpkg.log'}", "--force-script-chrootless"]
    if os.geteuid() != 0:
        options.append("--force-not-root")
    return options


def _prepare_root(root: Path) -> None:
    """Lay out an empty dpkg database in a root that has none."""
    if root == Path("/"):
        return
    database = root / "var/lib/dpkg"
    for place in (database, root / "var/log"):
        require_below(root, place)
    try:
        for directory in ("info", "updates", "triggers"):
            (database / directory).mkdir(parents=True, exist_ok=True)
        (root / "var/log").mkdir(exist_ok=True)
        (database / "status").touch(exist_ok=True)
    except OSError as error:
        raise storage_error(f"{database} could not be prepared", error) from error
