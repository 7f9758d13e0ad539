"""Initial deployment as a task: the agent out of the node's swarm, onto the machines that the work names."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import trio
from msgspec.structs import replace

from p2pdist import limits
from p2pdist.core.hostkeys import fingerprint
from p2pdist.core.installation import InstallationSettings
from p2pdist.duties.deploy.installing import HostState, Order, install
from p2pdist.duties.deploy.protocol import Credentials, Host, Package
from p2pdist.duties.repository import Place, Repository
from p2pdist.duties.run import Ended, RunPort
from p2pdist.errors import Unavailable, UsageError
from p2pdist.trust.artifacts import check_file
from p2pdist.trust.catalog import Release
from p2pdist.wire.discovery import Sighting, canonical_address
from p2pdist.wire.installing import Install, InstallSecrets
from p2pdist.wire.tasks import TaskItem

_LOOK_S = 0.5
_STILL_S = 120.0  # without a byte of the agent: whoever has it is not reached


async def install_agents(work: Install, port: RunPort, repository: Repository) -> Ended:
    """Do the work; each host is an item.

    Raises:
        UsageError: the release is not signed.
        TrustError: the secrets are for other work, or the agent's file is not what was signed.
        Unavailable: the secrets are gone, the agent's file does not come, or its worker does not run.
    """
    secrets = await port.secrets(InstallSecrets)  # first: who has to give them again should not wait
    for host in work.hosts:
        await port.item(TaskItem(subject=host.id, state="waiting"))
    chosen = await repository.choose([work.target])
    if not chosen.releases:
        raise UsageError(f"this node knows no signed release {work.target}")
    (release,) = chosen.releases
    async with repository.open(release) as place:
        await _here(place, release, port, repository)
        return await _Run(work, port, _order(work, secrets, port, place, release, repository)).run()


async def _here(place: Place, release: Release, port: RunPort, repository: Repository) -> None:
    """Wait until the agent's file is here, and is what was signed."""
    have, moved = -1, trio.current_time()
    while not place.complete:
        statistics = repository.swarm.statistics(release.info_hash)
        if statistics.complete:
            break
        if statistics.bytes_done > have:
            have, moved = statistics.bytes_done, trio.current_time()
        elif trio.current_time() > moved + _STILL_S:
            raise Unavailable(
                f"{release.target} does not come: {have} of {release.length} bytes are here",
                hint="p2pdist explain shows from where it could; then run the task again",
            )
        port.progress("fetching the agent", done=have, total=release.length)
        await trio.sleep(_LOOK_S)
    await trio.to_thread.run_sync(
        partial(check_file, place.artifact.path, length=release.length, sha256=release.sha256)
    )


def _order(
    work: Install,
    secrets: InstallSecrets,
    port: RunPort,
    place: Place,
    release: Release,
    repository: Repository,
) -> Order:
    bundle = repository.bundle()
    addresses = tuple(work.addresses) or bundle.addresses
    if not addresses:
        raise UsageError("it is not known where the new devices find the fleet", hint="name it: --address")
    return Order(
        hosts=[
            Host(
                id=host.id,
                address=host.address,
                port=host.port,
                key=host.key,
                first_use=work.first_use,
                token=port.tokens.get(host.id, ""),
            )
            for host in work.hosts
        ],
        credentials=Credentials(
            user=work.user,
            password=secrets.password,
            key=secrets.key,
            passphrase=secrets.passphrase,
            agent=work.ssh_agent,
            sudo=work.sudo,
            sudo_password=secrets.sudo_password,
        ),
        package=Package(
            path=str(Path(place.artifact.path).absolute()),
            length=release.length,
            sha256=release.sha256,
            platform=release.platform,
        ),
        bundle=replace(bundle, addresses=addresses).encode(),
        config=work.config,
        settings=InstallationSettings(parallel=work.parallel, dry_run=work.dry_run),
    )


class _Run:
    """One run: what has come of its hosts so far."""

    def __init__(self, work: Install, port: RunPort, order: Order) -> None:
        self._work = work
        self._port = port
        self._order = order
        self._address = {host.id: host.address for host in work.hosts}
        self._states: dict[str, HostState] = {}
        self._found: dict[str, list[str]] = {host.id: [] for host in work.hosts}

    async def run(self) -> Ended:
        """Install everywhere; return what came of it."""
        outcome = await install(self._order, tell=self._tell, reported=self._port.came)
        failed = [state for state in self._states.values() if state.state == "failed"]
        reason = ""
        if failed:
            first = failed[0]
            reason = f"{len(failed)} of {len(self._work.hosts)} hosts failed; {first.host}: {first.detail}"
        elif self._work.dry_run:
            reason = "a dry run: nothing was changed"
        counts = Counter(state.state for state in self._states.values())
        figures = {"hosts": len(self._work.hosts), "done": counts["done"], "failed": counts["failed"]}
        return Ended(outcome=outcome, reason=reason, figures=figures)

    async def _tell(self, state: HostState) -> None:
        before = self._states.get(state.host)
        self._states[state.host] = state
        found = self._found[state.host]
        if state.detail and state.state != "failed" and state.detail not in found:
            found.append(state.detail)
        await self._port.item(
            TaskItem(
                subject=state.host,
                state=state.state,
                step=state.step,
                detail=self._detail(state)[: limits.TASK_DETAIL_CHARS_MAX],
                size_bytes=state.copied_bytes,
            )
        )
        ended = sum(each.state in ("done", "failed") for each in self._states.values())
        self._port.progress(f"{ended} of {len(self._work.hosts)} hosts have ended")
        if state.state == "done" and state.node and (before is None or before.state != "done"):
            await self._managed(state)

    def _detail(self, state: HostState) -> str:
        if state.state != "done":
            return state.detail
        shown = fingerprint(state.key)
        facts = [f"it is node {state.node}"] if state.node else []
        facts += [f"its key is {shown}"] if shown else []
        return "; ".join([*facts, *(each for each in self._found[state.host] if each != shown)])

    async def _managed(self, state: HostState) -> None:
        """Say which machine of the inventory is a node now, by the address at which it was reached."""
        address = canonical_address(self._address[state.host])
        if address and state.node:
            await self._port.saw(Sighting(method="managed", node=state.node, addresses=[address]))
