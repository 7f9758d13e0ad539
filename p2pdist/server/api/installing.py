"""What the admin server does about installing agents: it checks the work, and makes a token for each host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId, TargetPath, parse_group
from p2pdist.server.api.context import Api
from p2pdist.server.api.table import Call
from p2pdist.server.tokens import new_token
from p2pdist.store import groups, tokens
from p2pdist.store.records import EnrolmentTokenRecord, TaskRecord
from p2pdist.trust.catalog import TreeRecipe
from p2pdist.wire.installing import Install
from p2pdist.wire.work import AnyWork


async def check_installing(api: Api, work: AnyWork, nodes: Sequence[NodeId], now: int) -> None:
    """Check of work that installs agents what only the admin server knows; other work is left alone.

    Raises:
        UsageError: it is for several nodes, or for one that gets no releases; its release is not the agent's,
            or a group is not there.
    """
    if not isinstance(work, Install):
        return
    if len(nodes) != 1:
        raise UsageError("one node logs in to these machines", hint="make a task for each site")
    if nodes[0] != api.tasks.node and not api.is_point(nodes[0], now):
        raise UsageError(
            "this node has no duty seed, by which it would get the agent",
            hint="sign it a grant with --duty seed --duty deploy",
        )
    release = api.releases.get(TargetPath(work.target))
    if release is None:
        raise UsageError(
            f"no signed release is {work.target[:120]!r}", hint="p2pdist release list shows those that are"
        )
    if isinstance(release.recipe, TreeRecipe) or "-" not in release.platform:
        raise UsageError(
            f"{release.target} is not the agent as one file, for one platform",
            hint="make it with tools/build-agent, and add it with --platform linux-x86_64 or such",
        )
    for group in sorted({host.group for host in work.hosts}):
        await api.store.read(groups.require_group, parse_group(group))


async def make_tokens(api: Api, call: Call[Any], record: TaskRecord, work: AnyWork) -> Mapping[str, str]:
    """Make an enrolment token for each host of the next run; what is left of them goes when it ends."""
    if not isinstance(work, Install) or work.dry_run:
        return {}
    run = record.run + 1
    made = {host.id: new_token() for host in work.hosts}
    records = [
        EnrolmentTokenRecord(
            id=f"{tokens.of_task(record.id, run)}{number}",
            group_path=parse_group(host.group),
            uses=1,
            uses_left=1,
            expires=call.now + limits.TASK_RUN_S_MAX,
            created=call.now,
            created_by=call.actor,
            note=f"for {host.id}, run {run} of task {record.id}",
        )
        for number, host in enumerate(work.hosts)
    ]
    await api.store.write(tokens.add_enrolment_tokens, list(made.values()), records)
    return made
